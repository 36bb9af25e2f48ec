"""Stages as a graph: what goals need, in which order, and what is made from what."""

from dataclasses import replace
from typing import Literal

import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.graph import after, in_order
from ss4d.pipelines.implementation import Deferred, Implementation, Stage
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.stage_config import StageConfig


class AnyConfig(StageConfig):
    method: Literal["any"] = "any"


def nothing(config: AnyConfig, inputs: StageInputs) -> None:
    raise AssertionError("never called")


def stage(name: str, *inputs: str) -> Implementation:
    return Implementation(stage=name, config=AnyConfig, run=nothing, inputs=inputs)


CHOSEN = {
    known.stage: known
    for known in (stage("e", "d"), stage("b", "a"), stage("a"), stage("d", "b", "c"), stage("c", "a"), stage("x", "c"))
}
ORDER = ("a", "b", "c", "d", "e", "x")


@pytest.mark.parametrize(
    ("goals", "expected"),
    [
        (["e"], ["a", "b", "c", "d", "e"]),
        (["c"], ["a", "c"]),
        (["x", "b"], ["a", "b", "c", "x"]),
        (["x", "e"], ["a", "b", "c", "d", "e", "x"]),
    ],
)
def test_goals_bring_what_they_need_and_no_more(goals: list[str], expected: list[str]) -> None:
    assert list(in_order(goals, CHOSEN, ORDER)) == expected


def test_a_stage_comes_after_what_it_takes_whatever_the_list_says() -> None:
    assert list(in_order(["e"], CHOSEN, ORDER[::-1])) == ["a", "c", "b", "d", "e"]


def test_what_is_made_from_a_stage() -> None:
    stages = in_order(["e", "x"], CHOSEN, ORDER)
    assert after("b", stages) == ["b", "d", "e"]
    assert after("a", stages) == list(stages)
    assert after("x", stages) == ["x"]


def test_what_has_no_order_is_told() -> None:
    with pytest.raises(PluginError, match="takes the result of 'z', which is no stage"):
        in_order(["a"], {"a": stage("a", "z")}, ["a"])
    with pytest.raises(PluginError, match="stage a and the implementation 'any' of the stage b"):
        in_order(["a"], {"a": stage("a", "b"), "b": stage("b", "a")}, ["a", "b"])
    with pytest.raises(PluginError, match="own result"):
        replace(CHOSEN["a"], inputs=("a",))


def left_out(name: str, *inputs: str) -> Implementation:
    return Implementation(stage=name, config=AnyConfig, inputs=inputs)


def test_what_stands_for_a_stage_that_is_left_out() -> None:
    chosen = {**CHOSEN, "c": left_out("c", "b"), "b": left_out("b", "a")}
    stages = in_order(["e"], chosen, ORDER)
    assert list(stages) == ["a", "d", "e"]
    assert stages["d"].inputs == ("a",)
    assert stages["d"].given == {"b": "a", "c": "a"}
    assert after("a", stages) == ["a", "d", "e"]
    assert in_order(["e"], CHOSEN, ORDER)["d"].given == {"b": "b", "c": "c"}


def test_a_stage_that_is_left_out_may_be_done_without() -> None:
    optional = replace(CHOSEN["e"], optional=("x",))
    with_it = in_order(["e"], {**CHOSEN, "e": optional}, ORDER)
    assert list(with_it) == ["a", "b", "c", "d", "x", "e"]
    without = in_order(["e"], {**CHOSEN, "e": optional, "x": left_out("x")}, ORDER)
    assert without["e"].inputs == ("d",)
    assert without["e"].given == {"d": "d", "x": None}
    with pytest.raises(ConfigError, match=r"d.method=any needs the result of c, which c.method=any leaves out"):
        in_order(["e"], {**CHOSEN, "c": left_out("c")}, ORDER)


def test_no_goal_is_left_out() -> None:
    with pytest.raises(ConfigError, match=r"choose another method, or the goal a$"):
        in_order(["b"], {**CHOSEN, "b": left_out("b", "a")}, ORDER)
    with pytest.raises(ConfigError, match=r"choose another method$"):
        in_order(["b"], {**CHOSEN, "b": left_out("b")}, ORDER)
    with pytest.raises(PluginError, match="each for the result of the other"):
        in_order(["e"], {**CHOSEN, "b": left_out("b", "c"), "c": left_out("c", "b")}, ORDER)
    with pytest.raises(PluginError, match="one other at most"):
        left_out("d", "b", "c")


@pytest.mark.parametrize(
    ("goals", "words"),
    [
        ("[skeleton]", "there is no stage 'skeleton'; choose from .*, or install the package that adds it"),
        ("[slat, slat]", "names slat twice"),
        ("[]", r"'goals' must be a list of one or more stages, such as \[export\]; got \[\]"),
        ("slat", "'goals' must be a list .* got 'slat'"),
        ("", "'goals' must be a list .* got None"),
    ],
)
def test_wrong_goals_name_the_key(goals: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("tiny", [f"goals={goals}"])


def test_a_run_ends_at_its_goals() -> None:
    assert list(load_config("tiny").stages())[-1] == "export"
    assert list(load_config("tiny", ["goals=[sparse_structure]"]).stages()) == [
        "segmentation",
        "conditioning",
        "sparse_structure",
    ]


@pytest.mark.parametrize("name", ["Mesh", "", "a.b", "input", "goals", "training_clip"])
def test_names_that_no_stage_can_have(name: str) -> None:
    with pytest.raises(PluginError, match="stage"):
        Stage(name=name, output=None, default="any", meaning="nothing")


def test_what_computes_is_imported_when_it_is_used() -> None:
    assert Deferred("math:sqrt")(4) == 2
    with pytest.raises(ModuleNotFoundError):
        Deferred("no_such_module:f")(1)
    with pytest.raises(PluginError, match="'module:name'"):
        Deferred("math.sqrt")
