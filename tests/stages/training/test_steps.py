"""The table of steps hangs together, and the options of the command know its names."""

from dataclasses import fields

from ss4d.pipelines.training.train_options import TRAIN_OPTIONS, DataTrainOptions
from ss4d.stages.training.options import OPTIONS
from ss4d.stages.training.recipe import RECIPES
from ss4d.stages.training.steps import STEPS


def test_a_step_needs_only_what_comes_before_it() -> None:
    names = list(STEPS)
    for place, step in enumerate(STEPS.values()):
        assert set(step.needs) <= set(names[:place]), step.name


def test_every_network_of_a_recipe_is_trained_by_a_step() -> None:
    left = {role for step in STEPS.values() for role in step.leaves}
    for recipe in RECIPES.values():
        assert left == set(recipe.networks), recipe.name


def test_every_recipe_plans_every_step_that_trains() -> None:
    trained = {step.name for step in STEPS.values() if step.objective is not None}
    for recipe in RECIPES.values():
        assert set(recipe.plans) == trained, recipe.name
        assert {step.plan for step in STEPS.values()} == trained


def test_options_have_the_defaults_and_the_steps_that_they_speak_of() -> None:
    assert set(TRAIN_OPTIONS) == {field.name for field in fields(DataTrainOptions)}
    defaults = {field.name: field.default for field in fields(DataTrainOptions)}
    for name, option in OPTIONS.items():
        assert option.default == defaults[name], name
    assert all(name in OPTIONS["only"].help for name in STEPS)
