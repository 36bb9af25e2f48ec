"""What differs between two runs: what went in, and how far apart the results of each stage are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ss4d.pipelines.inspect.opened import OpenedRun, OpenedStage
from ss4d.pipelines.trees import flattened
from ss4d.stages.errors import ValueSpecError
from ss4d.stages.evaluation.distances import IncomparableError, Measures, distances
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Value
from ss4d.storage.errors import StoreError

Verdict = Literal["identical", "differs", "unknown"]


@dataclass(frozen=True)
class Change:
    """A thing that two runs have or say differently; None where one does not have it."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class StageDiff:
    """How the results of one stage compare.

    Attributes:
        stage: its name.
        verdict: whether they are the same to the bit; "unknown" where one of them cannot be read.
        why: in a phrase.
        measures: how far apart they are, by the measure's name, see `ss4d.stages.evaluation.distances`.
    """

    stage: str
    verdict: Verdict
    why: str
    measures: Measures


@dataclass(frozen=True)
class RunDiff:
    """All that differs between two runs."""

    input: Sequence[Change]
    seed: Sequence[Change]
    parameters: Sequence[Change]
    weights: Sequence[Change]
    versions: Sequence[Change]
    stages: Sequence[StageDiff]


def compare_runs(a: OpenedRun, b: OpenedRun) -> RunDiff:
    """Compares what the records say, then the results, stage by stage."""
    same_input = a.record.input.sha256 == b.record.input.sha256
    return RunDiff(
        # Where a file lies decides nothing, but tells a person which it was.
        input=[] if same_input else [Change("input", a.record.input.path, b.record.input.path)],
        seed=changes({"seed": a.record.seed}, {"seed": b.record.seed}),
        parameters=changes(a.record.config, b.record.config),
        weights=changes(a.record.model.sha256, b.record.model.sha256),
        versions=changes(_versions(a), _versions(b)),
        stages=[_compare_stage(name, a, b) for name in dict.fromkeys((*a.stages, *b.stages))],
    )


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """The entries of two trees that differ, by their dotted names."""
    in_a, in_b = dict(flattened(a)), dict(flattened(b))
    return [
        Change(name, in_a.get(name), in_b.get(name))
        for name in dict.fromkeys((*in_a, *in_b))
        if in_a.get(name) != in_b.get(name)
    ]


def _versions(run: OpenedRun) -> dict[str, Any]:
    """What the numbers depend on besides parameters and weights: packages, the device, revisions of implementations."""
    found: dict[str, Any] = {**run.record.versions, "device": run.record.device}
    for name, stage in run.stages.items():
        recipe = stage.record.recipe
        found[f"{name} ({recipe.implementation}) revision"] = recipe.revision
        if recipe.package:
            found[f"{name} ({recipe.implementation}) package"] = f"{recipe.package.name} {recipe.package.version}"
    return found


def _compare_stage(name: str, a: OpenedRun, b: OpenedRun) -> StageDiff:
    if name not in a.stages or name not in b.stages:
        return StageDiff(name, "differs", f"only {'A' if name in a.stages else 'B'} has this stage", {})
    in_a, in_b = a.stages[name], b.stages[name]
    same_key = in_a.ref == in_b.ref
    if same_key and os.path.realpath(in_a.store.location) == os.path.realpath(in_b.store.location):
        return StageDiff(name, "identical", "one artifact", {})
    if missing := [run for run, stage in (("A", in_a), ("B", in_b)) if not stage.stored]:
        return StageDiff(name, "unknown", f"not stored in {' and '.join(missing)}", {})
    try:
        verdict, measures = _compare_values(in_a, in_b) if in_a.arrays() else _compare_files(in_a, in_b)
    except IncomparableError as error:
        return StageDiff(name, "differs", str(error), {})
    except (StoreError, ValueSpecError) as error:
        return StageDiff(name, "unknown", str(error), {})
    recipe = "the same recipe" if same_key else "different recipes"
    return StageDiff(name, verdict, f"{recipe}, the same content" if verdict == "identical" else recipe, measures)


def _compare_values(a: OpenedStage, b: OpenedStage) -> tuple[Verdict, Measures]:
    value_a, value_b = a.value(), b.value()
    if _equal(value_a, value_b):
        return "identical", {}
    return "differs", distances(value_a, value_b, rasterize)


def _equal(a: Value, b: Value) -> bool:
    """Whether all arrays are the same to the bit."""
    pairs = [(getattr(a, name).numpy(), getattr(b, name).numpy()) for name in a.specs()]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def _compare_files(a: OpenedStage, b: OpenedStage) -> tuple[Verdict, Measures]:
    """By the hashes that the store keeps of them."""
    hashes_a, hashes_b = (
        {name: listed["sha256"] for name, listed in stage.artifact.attributes["files"].items()} for stage in (a, b)
    )
    if hashes_a == hashes_b:
        return "identical", {}
    return "differs", {
        "files_equal": sum(hashes_b.get(name) == sha256 for name, sha256 in hashes_a.items()),
        "files_a": len(hashes_a),
        "files_b": len(hashes_b),
    }
