"""What is said of each stage's result in numbers: the same from the run, the artifact, and a run that reuses it."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from ss4d.pipelines.contract import check_result
from ss4d.pipelines.dataset.report.sheet import NUMBERS
from ss4d.pipelines.handover import Handover
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.measures import MEASURES, measures
from ss4d.pipelines.meter import Meter
from ss4d.pipelines.plan import StageJob, Step
from ss4d.pipelines.prepare import RunOptions, prepare
from ss4d.pipelines.registry import installed
from ss4d.pipelines.tasks import run_job
from ss4d.stages.types import Clip, silent
from tests.conftest import FAST
from tests.helpers.dataset_history import attempt, four_clips, happen, opened
from tests.helpers.places import ROOT
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


def test_many_frames_are_checked_and_measured_in_little_memory() -> None:
    """A clip of thousands of frames fits memory once, and not eight times."""
    many = clip(torch.ones(48, 1024, 1024, dtype=torch.uint8))
    implementation = installed().get("segmentation", "auto")
    with Meter() as meter:
        before = psutil.Process().memory_info().rss
        check_result(implementation, installed().stage("segmentation"), many, Path())
        assert measures(many)["foreground"] == round(1 / 255, 6)
    assert meter.peak_memory - before < 48 << 20


def test_what_is_measured() -> None:
    alpha = torch.tensor([[[255, 0], [0, 0]], [[255, 255], [51, 0]]], dtype=torch.uint8)
    assert measures(clip(alpha)) == {"foreground": 0.4, "confidence": 1.0, "frames": 2}
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
    job = StageJob(step, {}, known.config, clip, 42, "cpu", known.location)
    outcome = run_job(job, silent, Handover([job]))
    assert outcome.reused
    assert outcome.measures == found["segmentation"]


def test_every_number_of_the_report_can_be_written() -> None:
    script = (ROOT / "pipelines" / "inspect" / "viewer" / "columns.js").read_text()
    formats = re.search(r"const FORMATS = \{(.*?)\};", script, re.DOTALL)
    assert formats is not None
    known = set(re.findall(r"^\s*(\w+)\b", formats[1], re.MULTILINE))
    assert {form for _, form in NUMBERS.values()} <= known


ADDED = """
import sys
from pathlib import Path

import ss4d.pipelines.measures as measures
from ss4d.pipelines.measures import Measure

measures.MEASURES["tokens"] = Measure(
    name="tokens", meaning="over all frames", kind=int, title="Image tokens", format="count", value="Tokens", of=len
)

from ss4d.pipelines.dataset.catalog import write_catalog
from ss4d.pipelines.dataset.report.sheet import read_sheet, sheet_data
from ss4d.pipelines.dataset.select import Choice, select
from tests.helpers.dataset_history import attempt, happen, opened, read_catalog
from ss4d.pipelines.dataset.layout import open_dataset

dataset = open_dataset(Path(sys.argv[1]))
happen(dataset, attempt("a", "conditioning", measures={"tokens": 77}))
with opened(dataset) as known:
    write_catalog(known)
    (entry,) = [row for row in read_catalog(dataset) if (row.id, row.stage) == ("a", "conditioning")]
    assert entry.measures["tokens"] == 77
    assert [row.id for row in select(known.rows, Choice(where="tokens > 70"), known.index, known.keys)] == ["a"]
    data = sheet_data(read_sheet(known))
    assert data["numbers"]["tokens"][0] == 77
    assert data["numbers"]["voxels"][0] == 700
"""


def test_a_measure_is_added_in_one_place(tmp_path: Path) -> None:
    """To the list alone: index, catalog, `--where` and report follow, also for a dataset that was begun without it."""
    dataset = four_clips(tmp_path / "set")
    happen(dataset, attempt("a", "segmentation"), attempt("a", "sparse_structure"))
    with opened(dataset):  # makes the index
        pass
    subprocess.run([sys.executable, "-c", ADDED, dataset.folder], check=True, cwd=ROOT, timeout=300)
