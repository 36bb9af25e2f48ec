"""Pictures of the input's camera: what it sees, how well outlines agree there, and where its crop stands."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ss4d.pipelines.inspect.camera_pictures import aligned, as_gaussians, seen, side_views, with_borders
from ss4d.pipelines.inspect.drawing import CURVE, EARLIER, EDGE, Picture, Strip, draw_curves
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.inspect.pictures import Pictures, draw_camera, draw_fitted_camera
from ss4d.pipelines.inspect.report import write_report
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.stages.input_camera import in_grid
from ss4d.stages.types import Clip, GaussianClip, InputCamera, Voxels
from tests.conftest import FAST, Silent

SIDES = ["60 degrees to the right", "60 degrees to the left"]
SIZE = 64


@pytest.fixture(scope="module")
def folder(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of the bundled model with a field of view that is wrong, for the fit to mend; not to be changed."""
    given = ("camera.method=auto", "camera.pitch=10", "camera.distance=2", "camera.fov=60")
    options = RunOptions(
        source=clip,
        out=tmp_path_factory.mktemp("fitted"),
        overrides=(*FAST, *given, "structure_fit.method=masks", "camera_fit.method=auto"),
        device="cpu",
        engine="direct",
    )
    return run_clip(options, Silent())


@pytest.fixture(scope="module")
def run(folder: Path) -> OpenedRun:
    return open_run(folder)


def strips_of(run: OpenedRun, stage: str) -> dict[str, Strip]:
    return {strip.title: strip for strip in Pictures(run, at_most=2, size=SIZE).strips(stage)}


def camera_of(run: OpenedRun, stage: str) -> InputCamera:
    camera = run[stage].value()
    assert isinstance(camera, InputCamera)
    return camera


def having(pictures: Picture, color: Sequence[int]) -> np.ndarray:
    """Where pictures have this color."""
    return (pictures == np.array(color, np.uint8)).all(-1)


def test_a_camera_shows_what_it_was_found_by(run: OpenedRun) -> None:
    strips = strips_of(run, "camera")
    assert list(strips) == ["Input", "Input view", *SIDES, "Overlap"]
    overlap = camera_of(run, "camera").overlap
    assert f"{overlap.mean():.3f} on average" in strips["Overlap"].caption
    assert "yaw 0.0, pitch 10.0, field of view 60.0 degrees, distance 2.00" in strips["Input view"].caption
    for title in ("Input", "Input view"):
        assert having(strips[title].pictures, EDGE).any((1, 2)).all(), title
    np.testing.assert_array_equal(*(having(strips[title].pictures, EDGE) for title in ("Input", "Input view")))
    voxels = run["sparse_structure"].value()
    assert isinstance(voxels, Voxels)
    drawn, _ = seen(as_gaussians(voxels), strips["Input view"].times, in_grid(camera_of(run, "camera"), SIZE))
    beside_the_line = ~having(strips["Input view"].pictures, EDGE)
    np.testing.assert_array_equal(strips["Input view"].pictures[beside_the_line], drawn[beside_the_line])


def test_a_fitted_camera_shows_the_asset_before_and_after(run: OpenedRun) -> None:
    strips = strips_of(run, "camera_fit")
    before, after = camera_of(run, "camera"), camera_of(run, "camera_fit")
    assert not torch.equal(before.fov, after.fov), "the fit is to change something here"
    assert list(strips) == ["Input", "Input view, before", "Input view, after", *SIDES, "Overlap"]
    asset = run["decoding"].value()
    assert isinstance(asset, GaussianClip)
    for word, camera in (("before", before), ("after", after)):
        strip = strips[f"Input view, {word}"]
        line = having(strip.pictures, EDGE)
        np.testing.assert_array_equal(line, having(strips["Input"].pictures, EDGE))
        np.testing.assert_array_equal(strip.pictures[~line], seen(asset, strip.times, in_grid(camera, SIZE))[0][~line])
    assert (strips["Input view, before"].pictures != strips["Input view, after"].pictures).any()
    for side in SIDES:
        assert having(strips[side].pictures, CURVE).any()
        assert having(strips[side].pictures, EARLIER).any()


def test_fitted_cells_are_shown_before_and_after_from_the_camera_that_they_were_fitted_to(run: OpenedRun) -> None:
    strips = strips_of(run, "structure_fit")
    views = ["Input view", *SIDES]
    assert list(strips) == ["Input", *(f"{view}, {word}" for view in views for word in ("before", "after")), "Loss"]
    for stage, word in (("sparse_structure", "before"), ("structure_fit", "after")):
        cells, strip = run[stage].value(), strips[f"Input view, {word}"]
        assert isinstance(cells, Voxels)
        camera = in_grid(camera_of(run, "camera"), SIZE)
        np.testing.assert_array_equal(strip.pictures, seen(as_gaussians(cells), strip.times, camera)[0])


def test_the_overlap_that_is_drawn_is_the_one_that_was_fitted(run: OpenedRun) -> None:
    (strip,) = [s for s in Pictures(run, at_most=4, size=128).strips("camera_fit") if s.title == "Overlap"]
    words = strip.caption.split()
    before, after = float(words[words.index("before") - 1]), float(words[words.index("after") - 1])
    assert after == pytest.approx(float(camera_of(run, "camera_fit").overlap.mean()), abs=0.01)
    assert after > before


def test_the_page_has_these_pictures(run: OpenedRun, tmp_path: Path) -> None:
    write_report(run, tmp_path / "page.html", lambda _: None)
    page = (tmp_path / "page.html").read_text()
    for stage, count in (("camera", 5), ("camera_fit", 6)):
        assert page.count(f'data-strip="{stage}-') == count


def test_a_camera_that_was_left_as_it_was_is_shown_once(run: OpenedRun) -> None:
    strips = draw_fitted_camera(camera_of(run, "camera"), Pictures(run, at_most=2, size=SIZE))
    assert [strip.title for strip in strips] == ["Input", "Input view, before and after", *SIDES, "Overlap"]
    assert not having(strips[-1].pictures, EARLIER).any()


@pytest.mark.parametrize(
    ("gone", "camera", "camera_fit"),
    [
        (["segmentation"], ["Input view", *SIDES], ["Input view, before", "Input view, after", *SIDES]),
        (["sparse_structure"], ["Input", "Input view", *SIDES], None),
        (["camera"], None, ["Input", "Input view, after", *SIDES]),
        (["decoding"], ["Input", "Input view", *SIDES], ["Input"]),
        (["segmentation", "sparse_structure", "decoding"], [], []),
    ],
)
def test_what_is_not_stored_is_left_out(
    folder: Path, tmp_path: Path, gone: list[str], camera: list[str] | None, camera_fit: list[str] | None
) -> None:
    shutil.copytree(folder.parents[1], tmp_path / "out")
    run = open_run(tmp_path / "out" / "runs" / folder.name)
    for name in gone:
        run[name].store.remove(run[name].ref)
    for stage, expected in (("camera", camera), ("camera_fit", camera_fit)):
        if expected is not None:
            assert list(strips_of(run, stage)) == [*expected, "Overlap"], stage


def test_what_has_another_number_of_frames_is_left_out(run: OpenedRun) -> None:
    camera, pictures = replace(camera_of(run, "camera"), overlap=torch.ones(9)), Pictures(run, at_most=2, size=SIZE)
    for draw in (draw_camera, draw_fitted_camera):
        assert [strip.title for strip in draw(camera, pictures)] == ["Overlap"]


def test_a_run_without_voxels_shows_its_gaussians(inflated_run: Path) -> None:
    """By construction, their outline from the front is that of the mask."""
    run = open_run(inflated_run)
    assert "the Gaussians" in strips_of(run, "camera")["Input view"].caption
    asset, clip = run["decoding"].value(), run["segmentation"].value()
    assert isinstance(asset, GaussianClip)
    assert isinstance(clip, Clip)
    front = camera_of(run, "camera")
    off = replace(front, shift=torch.tensor([0.25, 0.0]))
    _, overlaps = aligned({"before": off, "after": front}, asset, clip, what="it", times=[0, 3], size=SIZE)
    assert (overlaps["after"] > 0.9).all()
    assert (overlaps["before"] < 0.7).all()


def test_cells_are_drawn_in_their_frame_where_they_are(run: OpenedRun) -> None:
    camera = camera_of(run, "camera")
    cells = torch.tensor([[0, 0, 1, 2, 6], [0, 2, 7, 0, 0]], dtype=torch.int32)
    asset = as_gaussians(Voxels(coords=cells, latent=torch.zeros(3, 1, 1, 1, 1), resolution=8))
    assert asset.offsets.tolist() == [0, 1, 1, 2]
    view = in_grid(camera, 256)
    _, covered = seen(asset, [0, 1, 2], view)
    assert not covered[1].any()
    for t, (x, y, z) in ((0, (1, 2, 6)), (2, (7, 0, 0))):
        place = np.array([(x + 0.5) / 8 - 0.5, (y + 0.5) / 8 - 0.5, (z + 0.5) / 8 - 0.5, 1.0])
        across, down, depth, _ = np.array(view.world_to_camera) @ place
        middle = np.argwhere(covered[t]).mean(0) + 0.5
        np.testing.assert_allclose(middle, 128 + view.focal / depth * np.array([down, across]), atol=1.0)


def test_the_border_is_where_the_crop_ends(run: OpenedRun) -> None:
    camera = replace(camera_of(run, "camera"), shift=torch.tensor([0.1, -0.2]))
    view, blank = in_grid(camera, SIZE), np.full((1, SIZE, SIZE, 3), 255, np.uint8)
    own = having(with_borders(blank, view, [view])[0], CURVE)
    assert own[2:-2, 2:-2].sum() == 0
    assert own.any()
    narrower = replace(camera, fov=camera.fov / 2)
    pictures = with_borders(blank, view, [in_grid(narrower, SIZE), view])[0]
    rows, columns = np.nonzero(having(pictures, EARLIER))
    # Less is seen around the middle of the cube, which shows at the same place of either picture.
    shares = np.tan(np.radians(float(narrower.fov) / 2)) / np.tan(np.radians(float(camera.fov) / 2))
    for found, shift in ((columns, 0.1), (rows, -0.2)):
        edges = SIZE * (0.5 + shift + shares * (np.array([-0.5, 0.5]) - shift))
        np.testing.assert_allclose([found.min(), found.max()], edges, atol=2.0)  # the line is two pixels wide


def test_side_views_are_the_camera_turned_around_the_object(inflated_run: Path) -> None:
    front = camera_of(open_run(inflated_run), "camera")  # of an upright grid
    camera = replace(front, yaw=torch.tensor(25.0), pitch=torch.tensor(15.0))
    for name, turn in {SIDES[0]: -60, SIDES[1]: 60}.items():  # a yaw to the object's right is to the viewer's left
        view = side_views(camera, SIZE)[name]
        turned = in_grid(replace(camera, yaw=camera.yaw + turn), SIZE)
        for axis, expected in zip(view.world_to_camera[:3], turned.world_to_camera[:3], strict=True):
            np.testing.assert_allclose(axis[:3], expected[:3], atol=1e-6)


def test_curves_share_one_scale_and_the_last_lies_on_top() -> None:
    low, high = np.full(5, 0.25, np.float32), np.full(5, 0.5, np.float32)
    picture = draw_curves([low, high], 100, highest=1.0)
    heights = [np.nonzero(having(picture, color))[0].mean() for color in (EARLIER, CURVE)]
    np.testing.assert_allclose(heights, [100 - 6 - 88 * 0.25, 100 - 6 - 88 * 0.5], atol=1.0)
    assert not having(draw_curves([high, high], 100), EARLIER).any()
