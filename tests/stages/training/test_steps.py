"""The table of steps hangs together, and the options of the command know its names."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ss4d.pipelines.training.train_options import TRAIN_OPTIONS, DataTrainOptions
from ss4d.stages.errors import InputError
from ss4d.stages.nn.column_encoder import ColumnEncoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.training.folder import Start
from ss4d.stages.training.fresh import fresh_network
from ss4d.stages.training.options import OPTIONS
from ss4d.stages.training.recipe import RECIPES
from ss4d.stages.training.results import Results
from ss4d.stages.training.sources import ClipSources
from ss4d.stages.training.steps import LEAVES, STEPS, possible_steps
from ss4d.stages.training.tiny import SLAT_SAMPLER, STRUCTURE_SAMPLER, changed
from ss4d.stages.training.training import Training
from ss4d.stages.types import Axes


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


def going_on_from(encoder: nn.Module, out: Path) -> Training:
    start = Start(
        networks={IMAGE_ENCODER: encoder},
        normalization=LatentNormalization(mean=(0.0,) * 8, std=(1.0,) * 8),
        structure_sampler=STRUCTURE_SAMPLER,
        slat_sampler=SLAT_SAMPLER,
        origin="before",
    )
    return Training(recipe=RECIPES["smoke"], out=out, device=torch.device("cpu"), ops=TORCH_OPS, start=start)


def test_the_image_encoder_of_a_model_learns_on_when_it_is_asked_for(tmp_path: Path) -> None:
    name, options = RECIPES["smoke"].networks[IMAGE_ENCODER]
    encoder = fresh_network(IMAGE_ENCODER, name, options, TORCH_OPS, 7)
    training = going_on_from(encoder, tmp_path)
    assert "images" not in [step.name for step in possible_steps(training)]
    [step] = possible_steps(replace(training, only="images"))
    assert step.objective is not None
    learned = step.objective(Results(training, LEAVES)).trained()[IMAGE_ENCODER].state_dict()
    for key, weight in encoder.state_dict().items():
        assert torch.equal(learned[key], weight), key


def test_a_deeper_image_encoder_gives_the_same_tokens_at_first_and_learns_in_all_blocks(tmp_path: Path) -> None:
    name, options = RECIPES["smoke"].networks[IMAGE_ENCODER]
    encoder = fresh_network(IMAGE_ENCODER, name, options, TORCH_OPS, 7)
    assert isinstance(encoder, ColumnEncoder)
    training = replace(going_on_from(encoder, tmp_path), only="images", deepen=True)
    objective = STEPS["images"].objective
    assert objective is not None
    made = objective(Results(training, LEAVES)).trained()[IMAGE_ENCODER]
    assert isinstance(made, ColumnEncoder)
    assert made.args.num_blocks == encoder.args.num_blocks + 1
    assert made.args.num_up_blocks == encoder.args.num_up_blocks + 1
    images = torch.rand(2, 4, encoder.args.image_size, encoder.args.image_size)
    tokens = made(images)
    assert torch.equal(tokens, encoder(images))
    tokens.square().sum().backward()
    new = {key: weight for key, weight in made.named_parameters() if key not in encoder.state_dict()}
    last = {key: weight for key, weight in new.items() if "conv2" in key}
    assert len(new) == 8 * (len(made.down_blocks) + len(made.up_blocks))
    assert all(not weight.any() and weight.grad is not None and weight.grad.any() for weight in last.values())
    again = objective(Results(training, LEAVES)).trained()[IMAGE_ENCODER].state_dict()
    assert all(torch.equal(again[key], weight) for key, weight in made.state_dict().items())


def test_only_column_encoders_learn_alone(tmp_path: Path) -> None:
    objective = STEPS["images"].objective
    assert objective is not None
    with pytest.raises(InputError, match="trains column encoders, and the model to start from has a Linear"):
        objective(Results(going_on_from(nn.Linear(2, 2), tmp_path), LEAVES))


@pytest.mark.parametrize("axes", ["camera", "crop"])
def test_clips_are_made_for_the_axes_of_the_networks_and_with_as_many_frames(axes: Axes, tmp_path: Path) -> None:
    smoke = RECIPES["smoke"]
    networks = changed(smoke.networks, {IMAGE_ENCODER: {"axes": axes}})
    training = Training(
        recipe=replace(smoke, networks=networks), out=tmp_path, device=torch.device("cpu"), ops=TORCH_OPS
    )
    sources = ClipSources(Results(training, LEAVES), lambda line: None)
    plan = smoke.plans["images"]
    for pool in (replace(plan.pool, num_frames=2), replace(plan.pool, num_frames=2, span=6)):  # each has its own folder
        with sources.open(replace(plan, pool=pool)) as clips:
            assert {(clip.axes, clip.num_frames) for clip in clips.batch(0, 3)} == {(axes, 2)}
