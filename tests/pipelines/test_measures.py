"""What is said of each stage's result in numbers: the same from the run, the artifact, and a run that reuses it."""

from pathlib import Path

import torch

from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.measures import MEASURES, measures
from ss4d.pipelines.plan import StageJob, Step
from ss4d.pipelines.prepare import RunOptions, prepare
from ss4d.pipelines.tasks import run_job
from ss4d.stages.types import Clip, silent
from tests.conftest import FAST
from tests.pipelines.test_contract import gaussians, voxels


def clip(alpha: torch.Tensor) -> Clip:
    return Clip(
        rgb=torch.zeros(*alpha.shape, 3, dtype=torch.uint8),
        alpha=alpha,
        crop=torch.tensor([0, 0, 2, 2]),
        confidence=torch.ones(len(alpha)),
        method="alpha",
        fps=24.0,
    )


def test_what_is_measured() -> None:
    alpha = torch.tensor([[[255, 0], [0, 0]], [[255, 255], [51, 0]]], dtype=torch.uint8)
    assert measures(clip(alpha)) == {"foreground": 0.4, "frames": 2}
    assert measures(voxels()) == {"voxels": 2}
    assert measures(gaussians([0, 0, 3])) == {"gaussians": 3}
    assert measures(None) == {}


def test_measures_lie_beside_the_result(finished_run: Path, model_folder: Path, clip: Path) -> None:
    run = open_run(finished_run)
    found = {name: stage.artifact.attributes["measures"] for name, stage in run.stages.items()}
    assert {name for measured in found.values() for name in measured} == set(MEASURES)
    assert found["segmentation"]["frames"] == 4
    assert found["sparse_structure"]["voxels"] == len(run.stages["sparse_structure"].value().coords)
    assert found["decoding"]["gaussians"] == len(run.stages["decoding"].value().means)

    options = RunOptions(
        source=clip, out=finished_run.parent.parent, overrides=(f"model={model_folder}", *FAST), device="cpu"
    )
    known = prepare(options)
    step: Step = known.steps[0]
    outcome = run_job(StageJob(step, {}, known.config, clip, 42, "cpu", known.location), silent)
    assert outcome.reused
    assert outcome.measures == found["segmentation"]
