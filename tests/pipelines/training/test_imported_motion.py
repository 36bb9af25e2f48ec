"""Imported animations: which become clips, what the manifest says of their motion, and files that end their worker."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from ss4d.pipelines.errors import ConfigError, WorkerError
from ss4d.pipelines.training import job_answers, make_records
from ss4d.pipelines.training.make_records import ALL, ClipJob, MadeRecords, Sizes, import_records, record
from ss4d.pipelines.training.records import MANIFEST, Row, open_records, read_manifest, update_manifest
from ss4d.stages.data.gltf_choice import AnimationChoice
from ss4d.stages.types import silent
from ss4d.storage.manifest import write_rows
from tests.helpers.gltf_files import HALF_TURN, tetrahedron

SMALL = Sizes(frames=3, size=16, views=1, resolution=8)
ZERO = [0.0, 0, 0]


def saved(folder: Path, name: str = "a.glb") -> Path:
    """A file that turns, rises by its own height, and has an animation in which nothing moves."""
    builder = tetrahedron()
    builder.animate_also("turn", (0, "rotation", [0, 0.5], [[0, 0, 0, 1], HALF_TURN], "LINEAR"))
    builder.animate_also("rest", (0, "rotation", [0, 0.5], [[0, 0, 0, 1]] * 2, "LINEAR"))
    builder.animate_also("rise", (0, "translation", [0, 0.2], [ZERO, [0, 300, 0]], "LINEAR"))
    return builder.save(folder / name)


def made(folder: Path, path: Path, choice: AnimationChoice) -> tuple[Row, bool]:
    folder.mkdir(exist_ok=True)
    row, new = record(folder, ClipJob(path.name, SMALL.spec(0), path, choice=choice))
    update_manifest(folder, [row])
    return row, new


def test_the_manifest_says_what_moves_and_how_much(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, folder = saved(tmp_path), tmp_path / "clips"
    rows = {name: made(folder, path, AnimationChoice(animation=name))[0] for name in ("turn", "rest", "rise")}
    assert rows["turn"].still is False
    assert rows["turn"].motion is not None
    assert rows["turn"].motion > 0.1
    assert rows["turn"].animation == "turn, from 0.00 s of 0.00 to 0.50 s"
    assert (rows["rest"].still, rows["rest"].motion, rows["rest"].fill) == (True, 0, 1)
    assert rows["rise"].fill is not None
    assert rows["rise"].fill < 0.05
    assert len({row.key for row in rows.values()}) == 3
    for row in rows.values():
        make_records._warn(row)
    assert "stands still: rest" in caplog.text
    assert "fills 1 % of the grid at a time; --root-motion remove" in caplog.text
    in_place, _ = made(folder, path, AnimationChoice(animation="rise", in_place=True))
    assert (in_place.still, in_place.fill) == (True, 1)
    again, new = made(folder, path, AnimationChoice(animation="rise", in_place=True))
    assert (again, new) == (in_place, False)
    assert open_records(folder).rows[-1] == in_place


def test_made_clips_have_their_motion_too(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    row, _ = record(tmp_path / "clips", ClipJob("bird-1", SMALL.spec(1, "bird")))
    assert row.still is False
    assert row.fill is not None
    assert row.fill > 0.5
    assert row.animation is None


def test_a_manifest_of_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    row, _ = record(tmp_path / "clips", ClipJob("bird-1", SMALL.spec(1, "bird")))
    write_rows(tmp_path / MANIFEST, Row, [row])
    table = parquet.read_table(tmp_path / MANIFEST)
    parquet.write_table(table.drop_columns(["motion", "still", "fill", "animation"]), tmp_path / MANIFEST)
    assert read_manifest(tmp_path) == [replace(row, motion=None, still=None, fill=None)]


def imported(folder: Path, path: Path, **choice: Any) -> MadeRecords:
    return import_records(folder, [path], seed=0, sizes=SMALL, workers=1, progress=silent, **choice)


def test_all_makes_a_clip_for_each_that_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_answers, "results", lambda function, jobs, workers: map(function, jobs))
    (tmp_path / "in").mkdir()
    path = saved(tmp_path / "in")
    saved(tmp_path / "in", "b.glb").write_bytes(b"none")
    outcome = imported(tmp_path / "clips", tmp_path / "in", animation=ALL)
    names = sorted(Path(row.id).name for row in outcome.rows)
    assert names == ["a.glb#rise", "a.glb#turn", "b.glb"]
    assert [Path(row.id).name for row in outcome.failed] == ["b.glb"]
    assert {row.animation for row in outcome.rows if row.key} == {
        "turn, from 0.00 s of 0.00 to 0.50 s",
        "rise, from 0.00 s of 0.00 to 0.20 s",
    }
    with pytest.raises(ConfigError, match=r"--from must come before --to; got 3 and 2"):
        imported(tmp_path / "clips", path, begin=3.0, end=2.0)
    (row,) = imported(tmp_path / "others", path, animation="walk").rows
    assert "has no animation walk; it has 0 (turn), 1 (rest), 2 (rise)" in (row.error or "")


def test_a_file_that_ends_its_worker_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(function: Callable[[ClipJob], Any], jobs: Sequence[ClipJob], workers: int | None) -> Iterator[Any]:
        for job in jobs:
            if job.id.endswith("bad.glb"):
                raise WorkerError("a worker process died")
            yield function(job)

    monkeypatch.setattr(job_answers, "results", dying)
    (tmp_path / "in").mkdir()
    for name in ("a.glb", "bad.glb", "c.glb"):
        saved(tmp_path / "in", name)
    for animation in (None, ALL):
        outcome = imported(tmp_path / "clips", tmp_path / "in", animation=animation)
        (bad,) = outcome.failed
        assert Path(bad.id).name == "bad.glb"
        assert "bad.glb ended the process that made its clip" in (bad.error or "")
        assert len(outcome.rows) == (3 if animation is None else 5)


@pytest.mark.parametrize("wrong", [99, 2**32 - 1])
def test_indices_out_of_range_are_told(tmp_path: Path, wrong: int) -> None:
    builder = tetrahedron()
    primitive = builder.json["meshes"][0]["primitives"][0]
    primitive["indices"] = builder.add([0, 1, wrong], "<u4")
    row, _ = made(tmp_path / "clips", builder.save(tmp_path / "a.glb"), AnimationChoice())
    assert f"a face names vertex {wrong} of 4 (mesh 0, primitive 0); export it again" in (row.error or "")
    builder.json["accessors"][-1]["componentType"] = 5124  # signed, which the format has not
    row, _ = made(tmp_path / "clips", builder.save(tmp_path / "a.glb"), AnimationChoice())
    assert "SCALAR/5124" in (row.error or "")
    assert row.key is None
