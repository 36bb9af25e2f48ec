"""Stages as a graph: each takes the results of others, and a run goes through what its goals need."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.implementation import Implementation


def in_order(
    goals: Iterable[str], chosen: Mapping[str, Implementation], order: Sequence[str]
) -> dict[str, Implementation]:
    """The goals and all that they need, each after what it takes; stages that are left out are not among them.

    Args:
        goals: names of stages.
        chosen: what does each stage.
        order: names of all stages; of those that could come next, the first of these does.

    Raises:
        ConfigError: a goal, or what an implementation cannot do without, is left out.
        PluginError: an implementation takes what no stage gives, or what is made from its own result.
    """
    waiting = _needed(goals, chosen)
    ordered: dict[str, Implementation] = {}
    while waiting:
        ready = [name for name in order if name in waiting and not waiting.keys() & set(waiting[name].inputs)]
        if not ready:
            circle = " and ".join(str(implementation) for implementation in waiting.values())
            raise PluginError(f"each needs the result of another first: {circle}")
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered


def after(stage: str, stages: Mapping[str, Implementation]) -> list[str]:
    """The stage and all that is made from its result, in the order of `stages`."""
    found = {stage}
    for name, implementation in stages.items():
        if found & set(implementation.inputs):
            found.add(name)
    return [name for name in stages if name in found]


def _needed(goals: Iterable[str], chosen: Mapping[str, Implementation]) -> dict[str, Implementation]:
    needed: dict[str, Implementation] = {}
    wanted = list(goals)
    for goal in wanted:
        if chosen[goal].leaves_out:
            stand_in = stands_for(goal, chosen)
            raise ConfigError(
                f"the goal {goal} is left out of the run by {goal}.method={chosen[goal].methods[0]}: choose another "
                f"method{f', or the goal {stand_in}' if stand_in else ''}"
            )
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed[name] = _joined(chosen[name], chosen)
            wanted.extend(needed[name].inputs)
    return needed


def _joined(implementation: Implementation, chosen: Mapping[str, Implementation]) -> Implementation:
    """The implementation with what it takes in a run where `chosen` do the stages."""
    given = {taken: stands_for(taken, chosen) for taken in (*implementation.inputs, *implementation.optional)}
    for taken, stage in given.items():
        if stage is None and taken in implementation.inputs:
            lacking = _left_out_for_nothing(taken, chosen)
            raise ConfigError(
                f"{implementation.stage}.method={implementation.methods[0]} needs the result of {lacking}, which "
                f"{lacking}.method={chosen[lacking].methods[0]} leaves out: change one of the two"
            )
        if stage is not None and stage not in chosen:
            raise PluginError(f"{implementation} takes the result of {stage!r}, which is no stage")
    return replace(
        implementation,
        inputs=tuple(dict.fromkeys(stage for stage in given.values() if stage is not None)),
        optional=(),
        given=given,
    )


def _left_out_for_nothing(stage: str, chosen: Mapping[str, Implementation]) -> str:
    """Where the stages that stand for each other, `stage` first, come to one that is left out for nothing."""
    while chosen[stage].inputs:
        stage = chosen[stage].inputs[0]
    return stage


def stands_for(stage: str, chosen: Mapping[str, Implementation]) -> str | None:
    """The stage whose result is that of `stage`: itself, another if it is left out, or None if it then gives none."""
    seen: list[str] = []
    while stage in chosen and chosen[stage].leaves_out:
        if stage in seen:
            raise PluginError(f"the stages {' and '.join(seen)} are left out, each for the result of the other")
        seen.append(stage)
        if not chosen[stage].inputs:
            return None
        stage = chosen[stage].inputs[0]
    return stage
