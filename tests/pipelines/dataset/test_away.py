"""What is finished stays so while its input is away: it is exported, kept by gc, and not planned again."""

import shutil
from pathlib import Path

import pytest

from ss4d.pipelines.dataset import manifest
from ss4d.pipelines.dataset.events import Attempt, EventWriter, now
from ss4d.pipelines.dataset.export import export_assets
from ss4d.pipelines.dataset.keys import Settings, open_keys
from ss4d.pipelines.dataset.launches import Launch
from ss4d.pipelines.dataset.layout import Dataset, open_dataset
from ss4d.pipelines.dataset.manifest import Scan, init_dataset, read_manifest
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.plan import DatasetPlan, plan_clips
from ss4d.pipelines.dataset.report.sheet import read_sheet
from ss4d.pipelines.dataset.select import ALL
from ss4d.pipelines.dataset.workers.policy import Policy
from ss4d.pipelines.store.housekeeping import collect
from ss4d.stages.types import silent
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from tests.conftest import draw_frames, save_frames
from tests.helpers.unfitted import OFF

SETTINGS = Settings(overrides=["decoding.method=inflation", *OFF])  # which needs no weights
NAMES = ("a", "b", "c", "d")


def init(folder: Path) -> Scan:
    return init_dataset(folder / "set", str(folder / "clips"), store=None, workers=1, progress=silent)


def plan(dataset: Dataset) -> DatasetPlan:
    return plan_clips(dataset, open_keys(SETTINGS)[0], ALL, Policy())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of four clips, of which all but the last are finished."""
    monkeypatch.setattr(manifest, "results", lambda function, jobs, _workers: map(function, jobs))
    for number, name in enumerate(NAMES):
        frames = draw_frames(2)
        frames[:, :3, :3] = (number, 10, 10, 255)
        save_frames(tmp_path / "clips" / name, frames)
    init(tmp_path)
    dataset = open_dataset(tmp_path / "set")
    keys, _ = open_keys(SETTINGS)
    made = keys.of([row.sha256 or "" for row in read_manifest(dataset)])
    store = open_store(dataset.store)
    with EventWriter(dataset.events, {}) as events:
        for stage, column in made.items():
            for name, key in zip(NAMES[:3], column, strict=False):
                with store.create(ArtifactRef(stage, key)) as writer:
                    if stage == "export":
                        (writer.folder / "cameras.json").write_text(name)
                    writer.commit({})
                events.write(Attempt(clip=name, stage=stage, key=key, state="done", time=now()))
    Launch(dataset, SETTINGS, keys.recipes(), {}).end(
        state="finished", reason=None, clips=3, done=3, failed={}, seconds=1.0
    )
    return tmp_path


def test_what_is_finished_needs_no_input(folder: Path) -> None:
    dataset = open_dataset(folder / "set")
    before = read_manifest(dataset)
    away = folder / "away"
    away.mkdir()
    shutil.move(folder / "clips" / "a", away / "a")  # deleted, or not mounted
    for file in (folder / "clips" / "b").iterdir():  # on its way back
        file.write_bytes(b"half of it")
    shutil.move(folder / "clips" / "d", away / "d")
    scan = init(folder)
    assert [row.id for row in scan.unreadable] == ["a", "b", "d"]
    assert [row.sha256 for row in scan.rows] == [row.sha256 for row in before]
    assert scan.vanished == ["a", "d"]
    assert scan.changed == []

    planned = plan(dataset)
    assert (planned.finished, planned.unreadable, len(planned.todo)) == (3, 1, 0)
    sorting = collect(dataset.store, min_age=0, dry_run=False, progress=silent)
    assert (sorting.unused, len(sorting.kept)) == ([], 9)
    with open_for(dataset, SETTINGS) as opened:
        exported = export_assets(opened, folder / "assets", where="state = 'done'", copies=False, progress=silent)
        sheet = read_sheet(opened)
    assert (exported.made, exported.unfinished) == (3, 0)
    assert [(folder / "assets" / name / "cameras.json").read_text() for name in "abc"] == ["a", "b", "c"]
    assert [card.state for card in sheet.cards] == ["done", "done", "done", "unreadable"]

    shutil.rmtree(folder / "clips" / "b")
    for name in "ad":
        shutil.move(away / name, folder / "clips" / name)
    frames = draw_frames(2)
    frames[:, :3, :3] = (1, 10, 10, 255)
    save_frames(folder / "clips" / "b", frames)
    back = init(folder)
    assert (back.unreadable, back.changed) == ([], [])
    planned = plan(dataset)
    assert (planned.finished, [todo.source.id for todo in planned.todo]) == (3, ["d"])


def test_what_needs_no_input_goes_on_without_it(folder: Path) -> None:
    """Only the stages that read the input wait for it."""
    dataset = open_dataset(folder / "set")
    (key,) = (ref.key for ref in open_store(dataset.store).refs() if ref.stage == "export" and is_of(dataset, ref, "a"))
    with EventWriter(dataset.events, {}) as events:
        events.write(Attempt(clip="", stage="export", key=key, state="gone", time=now()))
    shutil.rmtree(folder / "clips")
    (folder / "clips").mkdir()
    save_frames(folder / "clips" / "e", draw_frames(3))
    init(folder)
    planned = plan(dataset)
    assert [(todo.source.id, todo.stages) for todo in planned.todo if todo.source.id in NAMES] == [("a", ("export",))]
    assert (planned.finished, planned.unreadable) == (2, 1)


def is_of(dataset: Dataset, ref: ArtifactRef, clip: str) -> bool:
    return (open_store(dataset.store).open(ref).file("cameras.json")).read_text() == clip
