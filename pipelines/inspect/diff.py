"""What differs between two runs: what went in, and how far apart the results of each stage are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ss4d.pipelines.inspect.opened import OpenedRun, OpenedStage, UnknownTypeError
from ss4d.pipelines.trees import flattened
from ss4d.stages.evaluation.distances import IncomparableError, Measures, arrays_distance, distances
from ss4d.stages.ops.rasterize import rasterize
from ss4d.storage.errors import StoreError

Verdict = Literal["identical", "differs", "unknown"]


@dataclass(frozen=True)
class Change:
    """An entry that differs between two runs; None where a run does not have it."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class StageDiff:
    """How the results of one stage compare.

    Attributes:
        stage: its name.
        verdict: whether they are the same to the bit; "unknown" where one of them cannot be read.
        why: the reason, in a phrase.
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
        # The path decides nothing, but tells a person which file it was.
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
    """What results depend on besides parameters and weights: packages, device, kernels, implementations."""
    found: dict[str, Any] = {**run.record.versions, "device": run.record.device}
    found |= {f"{part} kernel": chosen.kernel for part, chosen in run.record.kernels.items()}
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
    recipe = "the same recipe" if same_key else "different recipes"
    try:
        if _same_content(in_a, in_b):
            return StageDiff(name, "identical", f"{recipe}, the same content", {})
        measures = {**_distances(in_a, in_b), **_equal_files(in_a, in_b)}
    except IncomparableError as error:
        return StageDiff(name, "differs", str(error), {})
    except StoreError as error:
        return StageDiff(name, "unknown", str(error), {})
    told = [f"{change.what} {change.a} against {change.b}" for change in changes(in_a.scalars, in_b.scalars)]
    return StageDiff(name, "differs", "; ".join((recipe, *told)), measures)


def _same_content(a: OpenedStage, b: OpenedStage) -> bool:
    """Whether all arrays, scalars and files are the same to the bit."""
    return (
        set(a.arrays()) == set(b.arrays())
        and a.scalars == b.scalars
        and _hashes(a) == _hashes(b)
        and all(np.array_equal(a.artifact.read(x), b.artifact.read(x), equal_nan=True) for x in a.arrays())
    )


def _distances(a: OpenedStage, b: OpenedStage) -> Measures:
    """How far apart the values of two stages are; of a type that is not known here, how far apart the arrays are."""
    if not (a.arrays() or b.arrays()):
        return {}
    try:
        return distances(a.value(), b.value(), rasterize)
    except UnknownTypeError:
        return arrays_distance(*({x: torch.from_numpy(s.artifact.read(x)) for x in s.arrays()} for s in (a, b)))


def _equal_files(a: OpenedStage, b: OpenedStage) -> Measures:
    """How many files have the same name and bytes, of how many."""
    hashes_a, hashes_b = _hashes(a), _hashes(b)
    if not (hashes_a or hashes_b):
        return {}
    return {
        "files_equal": sum(hashes_b.get(name) == sha256 for name, sha256 in hashes_a.items()),
        "files_a": len(hashes_a),
        "files_b": len(hashes_b),
    }


def _hashes(stage: OpenedStage) -> dict[str, str]:
    """SHA-256 of each of its files, as the store keeps them."""
    return {name: listed["sha256"] for name, listed in stage.artifact.attributes["files"].items()}
