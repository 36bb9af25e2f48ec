"""Statistics of arrays, pictures of stages, and `ss4d inspect`, on a real small run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ss4d.pipelines.inspect.drawing import (
    EDGE,
    PAPER,
    PrincipalColors,
    Strip,
    contact_sheet,
    draw_voxels,
    evenly,
    outline,
)
from ss4d.pipelines.inspect.opened import OpenedRun, OpenedStage, open_run
from ss4d.pipelines.inspect.pictures import Pictures, source_frames
from ss4d.pipelines.inspect.statistics import NUM_BINS, array_statistics, bars
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.stages.types import silent
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore


@pytest.fixture(scope="module")
def run(finished_run: Path) -> OpenedRun:
    return open_run(finished_run)


@pytest.fixture
def stage(run: OpenedRun, tmp_path: Path) -> OpenedStage:
    """A stage with arrays that are hard to summarize."""
    store, ref = ArtifactStore(tmp_path), ArtifactRef("odd", "0" * 64)
    with store.create(ref) as writer:
        holed = np.array([[1.0, np.nan, np.inf], [-np.inf, 3.0, np.nan]], np.float32)
        writer.write("holed", ArrayData(holed, ("n", "3"), attributes={"meaning": "has holes"}))
        writer.write("empty", ArrayData(np.zeros((0, 4), np.float32), ("n", "4")))
        writer.write("flags", ArrayData(np.array([True, False, True, True]), ("n",)))
        writer.write("wide", ArrayData(np.array([-(2**63), 2**63 - 1]), ("n",)))
        writer.commit({})
    return OpenedStage(run["slat"].record, ref, store)


def test_statistics_are_those_of_the_numbers(run: OpenedRun) -> None:
    for array in array_statistics(run["decoding"]):
        values = run["decoding"][array.name][:]
        assert (array.shape, array.dtype) == (values.shape, values.dtype.name)
        assert array.least == pytest.approx(values.min())
        assert array.most == pytest.approx(values.max())
        assert array.mean == pytest.approx(values.astype(np.float64).mean())
        assert sum(array.histogram) == values.size
        assert array.meaning


def test_what_is_not_finite_is_counted_and_left_out(stage: OpenedStage) -> None:
    found = {array.name: array for array in array_statistics(stage)}
    assert (found["holed"].num_nan, found["holed"].num_inf) == (2, 2)
    assert (found["holed"].least, found["holed"].most, found["holed"].mean) == (1, 3, 2)
    assert (found["empty"].least, found["empty"].histogram) == (None, ())
    assert found["flags"].mean == 0.75
    assert sum(found["wide"].histogram) == 2


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=NUM_BINS))
@settings(max_examples=50)
def test_bars_are_as_high_as_the_counts(counts: list[int]) -> None:
    line = bars(tuple(counts))
    assert len(line) == len(counts)
    assert [bar == " " for bar in line] == [count == 0 for count in counts]
    pairs = sorted(zip(counts, line, strict=True))
    assert [bar for _, bar in pairs] == sorted(bar for _, bar in pairs)


def test_colors_do_not_depend_on_the_order_of_rows_nor_on_the_frame() -> None:
    feats = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32) * np.arange(8, 0, -1, dtype=np.float32)
    order = np.random.default_rng(1).permutation(len(feats))
    colors = PrincipalColors(feats)
    np.testing.assert_allclose(PrincipalColors(feats[order])(feats), colors(feats), atol=1e-4)
    np.testing.assert_array_equal(colors(feats)[100:200], colors(feats[100:200]))
    # The first component, shown as red, follows the widest channel.
    assert abs(np.corrcoef(colors(feats)[:, 0], feats[:, 0])[0, 1]) > 0.9


@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (5, 2), (5, 1)])
def test_colors_exist_for_few_rows_and_few_channels(shape: tuple[int, int]) -> None:
    colors = PrincipalColors(np.ones(shape, np.float32))(np.ones(shape, np.float32))
    assert colors.shape == (shape[0], 3)
    assert np.isfinite(colors).all()


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7), st.sampled_from([30, 64, 200]))
@settings(max_examples=30, deadline=None)
def test_a_voxel_is_drawn_inside_the_picture_and_hidden_by_a_nearer_one(x: int, y: int, z: int, size: int) -> None:
    far, near = np.array([[x, y, z]], np.int32), np.array([[x + 1, y - 1, z + 1]], np.int32)
    red, blue = np.array([[1, 0, 0]], np.float32), np.array([[0, 0, 1]], np.float32)
    alone = draw_voxels(far, red, 8, size)
    assert alone.shape[0] == alone.shape[1] >= size
    painted = (alone != PAPER).any(-1)
    unit = alone.shape[0] // 32
    assert painted.sum() == 12 * unit**2  # the whole cube, three faces of 4 unit^2
    if (near >= 0).all() and (near < 8).all():
        for order in ([0, 1], [1, 0]):
            both = draw_voxels(np.concatenate([far, near])[order], np.concatenate([red, blue])[order], 8, size)
            np.testing.assert_array_equal(both, draw_voxels(near, blue, 8, size))


def test_a_frame_without_voxels_is_blank() -> None:
    empty = draw_voxels(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32), 16, 64)
    assert (empty == PAPER).all()


def test_the_outline_lies_on_the_edge() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    edge = outline(mask)
    assert edge[5:7, 5:15].all()
    assert not edge[7:13, 7:13].any()
    assert not (edge & ~mask).any()


@given(st.integers(1, 200), st.integers(1, 40))
def test_frames_are_spread_over_the_clip(num_frames: int, at_most: int) -> None:
    times = evenly(num_frames, at_most)
    assert len(times) == min(num_frames, at_most)
    assert times == sorted(set(times))
    assert times[0] == 0
    assert times[-1] == (num_frames - 1 if at_most > 1 else 0)


def test_a_sheet_holds_every_picture() -> None:
    pictures = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in (10, 120, 200)])
    sheet = np.asarray(contact_sheet([Strip("One", "of two", [0, 4, 9], pictures)] * 2, size=16))
    for shade in (10, 120, 200):
        assert ((sheet == shade).all(-1)).sum() >= 2 * 16 * 16


def test_every_stage_with_a_value_has_pictures_over_time(run: OpenedRun) -> None:
    pictures = Pictures(run, at_most=3, size=48)
    for name in run:
        strips = pictures.strips(name)
        assert bool(strips) == (name != "export")
        for strip in strips:
            assert strip.times == [0, 2, 3]  # of four frames
            assert strip.pictures.shape == (3, 48, 48, 3)
            assert strip.pictures.std() > 0, strip.title


def test_what_was_left_out_is_dark_and_the_edge_is_drawn(run: OpenedRun) -> None:
    assert source_frames(run) is not None
    objects, masks = Pictures(run, at_most=2, size=64).strips("segmentation")
    inside = masks.pictures[..., 0] >= 128
    edge = (objects.pictures == EDGE).all(-1)
    assert edge.any(axis=(1, 2)).all()
    assert not (edge & ~inside).any()
    assert objects.pictures[inside & ~edge].mean() > objects.pictures[~inside].mean()


def copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run.parents[1], folder / "out")
    return folder / "out" / "runs" / run.name


def test_pictures_need_neither_the_input_nor_the_stages_before(finished_run: Path, tmp_path: Path) -> None:
    folder = copied(finished_run, tmp_path)
    content = json.loads((folder / "run.json").read_text())
    content["input"]["path"] = str(tmp_path / "gone.mp4")
    (folder / "run.json").write_text(json.dumps(content))
    assert "not where it was" in Pictures(open_run(folder)).strips("segmentation")[0].caption
    segmentation = open_run(folder)["segmentation"]
    segmentation.store.remove(segmentation.ref)
    assert [strip.title for strip in Pictures(open_run(folder)).strips("conditioning")] == ["Image tokens"]
    with pytest.raises(StoreError, match="segmentation"):
        Pictures(open_run(folder)).strips("segmentation")


def inspect(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ss4d.cli.entry", "inspect", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_tells_a_stage_in_json_and_draws_it(finished_run: Path, tmp_path: Path) -> None:
    done = inspect(finished_run, "slat", "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [array["name"] for array in told["arrays"]] == ["coords", "feats"]
    assert told["values"]["num_frames"] == 4
    assert told["picture"] == str(tmp_path / "slat.png")
    assert Image.open(tmp_path / "slat.png").width > 192


def test_what_is_made_of_a_packed_run_lies_beside_it(finished_run: Path, tmp_path: Path) -> None:
    pack_run(finished_run, tmp_path / "disc.zip", silent)
    (tmp_path / "disc").mkdir()  # the clip itself, perhaps: nothing is to be put into it
    done = inspect(tmp_path / "disc.zip", "slat")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "disc-inspect" / "slat.png").is_file()
    assert not list((tmp_path / "disc").iterdir())


def test_a_picture_is_not_written_through_a_link_in_the_run(finished_run: Path, tmp_path: Path) -> None:
    folder = copied(finished_run, tmp_path)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "slat.png").write_text("mine")
    (folder / "inspect").symlink_to(tmp_path / "precious")
    done = inspect(folder, "slat")
    assert done.returncode == 1
    assert "say with --out where to write" in done.stderr
    (folder / "inspect").unlink()
    (folder / "inspect").mkdir()
    (folder / "inspect" / "slat.png").symlink_to(tmp_path / "precious" / "slat.png")
    assert inspect(folder, "slat").returncode == 0
    assert (tmp_path / "precious" / "slat.png").read_text() == "mine"
    assert Image.open(folder / "inspect" / "slat.png").width > 192


def test_a_failed_run_says_why(finished_run: Path, tmp_path: Path) -> None:
    folder = copied(finished_run, tmp_path)
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "state": "failed", "error": "OSError: no <space>"}))
    run = open_run(folder)
    assert run.title.startswith("disc (failed: OSError: no <space>), from ")
    assert "no &lt;space&gt;" in run._repr_html_()


def test_a_run_that_was_stopped_is_shown_and_a_missing_stage_is_one_sentence(
    finished_run: Path, tmp_path: Path
) -> None:
    folder = copied(finished_run, tmp_path)
    decoding = open_run(folder)["decoding"]
    decoding.store.remove(decoding.ref)
    done = inspect(folder)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines() if line.startswith(" ")}
    assert rows["decoding"] == ["missing", decoding.ref.key[:8]]
    assert rows["slat"] == ["computed", open_run(folder)["slat"].ref.key[:8]]
    failed = inspect(folder, "decoding")
    assert failed.returncode == 1
    assert "decoding" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (folder / "inspect").exists()


def test_a_record_of_other_frames_is_told_so(finished_run: Path, tmp_path: Path) -> None:
    folder = copied(finished_run, tmp_path)
    content = json.loads((folder / "run.json").read_text())
    content["config"]["input"]["count"] = 1
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="gives 1 frames, and the clip has 4"):
        Pictures(open_run(folder)).strips("segmentation")
