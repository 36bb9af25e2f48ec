"""Stages as a graph: each takes the results of others, and a run goes through what its goals need."""

from collections.abc import Iterable, Mapping, Sequence

from ss4d.pipelines.errors import PluginError
from ss4d.pipelines.implementation import Implementation


def in_order(
    goals: Iterable[str], chosen: Mapping[str, Implementation], order: Sequence[str]
) -> dict[str, Implementation]:
    """The goals and all that they need, each after what it takes.

    Args:
        goals: names of stages.
        chosen: what does each stage.
        order: names of all stages; of those that could come next, the first of these does.

    Raises:
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
    while wanted:
        name = wanted.pop()
        if name in needed:
            continue
        needed[name] = chosen[name]
        for taken in needed[name].inputs:
            if taken not in chosen:
                raise PluginError(f"{needed[name]} takes the result of {taken!r}, which is no stage")
            wanted.append(taken)
    return needed
