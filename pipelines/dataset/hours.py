"""How long the rest of a dataset will take: from what finished clips took, else from the networks' arithmetic."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

import torch

from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import StageKeys
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import read_manifest
from ss4d.pipelines.dataset.plan import DatasetPlan
from ss4d.pipelines.forecast import forecast_stages
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to compute.

    Attributes:
        seconds: of one clip after the other.
        measured: the stages of which finished clips tell how long they take.
        estimated: those of which the arithmetic of their networks tells it, on this machine.
        refused: those that this machine would refuse, since they compute in float16 and it has no card; they do not
            count.
        unknown: those of which nothing tells it, which do not count either.
    """

    seconds: float
    measured: tuple[str, ...]
    estimated: tuple[str, ...]
    refused: tuple[str, ...]
    unknown: tuple[str, ...]


def expected_work(dataset: Dataset, keys: StageKeys, folder: ModelFolder, plan: DatasetPlan) -> Work:
    """How long a planned run will compute.

    Args:
        dataset: that is planned.
        keys: of its configuration.
        folder: with its networks.
        plan: what is to be computed.
    """
    runs = {stage.stage: stage.run for stage in plan.stages if stage.run}
    measured = {stage: seconds for stage, seconds in _taken(dataset, plan).items() if stage in runs}
    asked = [stage for stage in runs if stage not in measured and keys.stages[stage].roles]
    estimated: dict[str, float] = {}
    refused: list[str] = []
    if asked and (frames := _mean_frames(dataset, keys, plan)):
        device = resolve_device("auto")
        forecasts = forecast_stages(keys.config, folder, asked, frames, None)
        # No CPU is given float16 to compute, so its rate there tells nothing of the machine that will be.
        refused = [forecast.stage for forecast in forecasts if device == "cpu" and torch.float16 in forecast.flop]
        estimated = {known.stage: known.seconds(device) for known in forecasts if known.stage not in refused}
    known = measured | estimated
    return Work(
        seconds=sum(runs[stage] * seconds for stage, seconds in known.items()),
        measured=tuple(measured),
        estimated=tuple(estimated),
        refused=tuple(refused),
        unknown=tuple(stage for stage in runs if stage not in known and stage not in refused),
    )


def _taken(dataset: Dataset, plan: DatasetPlan) -> dict[str, float]:
    """Mean seconds of the artifacts that are there, by stage."""
    made = {stage: set(keys) for stage, keys in plan.keys.items()}
    taken: defaultdict[str, list[float]] = defaultdict(list)
    with open_index(dataset) as index:
        for stage, key, seconds in index.query("SELECT stage, key, seconds FROM artifacts WHERE seconds IS NOT NULL"):
            if key in made.get(stage, ()):
                taken[stage].append(seconds)
    return {stage: fmean(seconds) for stage, seconds in taken.items()}


def _mean_frames(dataset: Dataset, keys: StageKeys, plan: DatasetPlan) -> int:
    """Of the clips that have something to do; 0 if the manifest does not say it of any."""
    wanted = {todo.source.id for todo in plan.todo}
    chosen = [
        len(keys.config.input.indices(row.frames, row.fps or keys.config.input.fps))
        for row in read_manifest(dataset)
        if row.id in wanted and row.frames
    ]
    return round(fmean(chosen)) if chosen else 0
