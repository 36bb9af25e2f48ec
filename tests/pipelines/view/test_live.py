"""`ss4d view --live`: what stages made as layers of one scene; with viser in a real headless browser where it is."""

import io
import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.values import write_value
from ss4d.pipelines.view.shapes import SHOWN, Cells, Splats, Surface
from ss4d.stages.types import GaussianClip, MeshClip, StructuredLatents, Voxels
from ss4d.storage.refs import ArtifactRef
from tests.helpers.browser import start_browser, wait
from tests.stages.export.clips import boxes, lopsided

with_viser = pytest.mark.skipif(find_spec("viser") is None, reason="viser is not installed")
COORDS = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 3, 1, 2], [0, 2, 0, 0, 3], [0, 2, 1, 1, 1]], dtype=torch.int32)


def test_cells_lie_where_the_grid_has_them_and_their_colors_mean_the_same_over_time() -> None:
    voxels = Voxels(coords=COORDS, latent=torch.zeros(3, 1, 2, 2, 2), resolution=4)
    first, empty = (SHOWN[Voxels](voxels).at(t) for t in (0, 1))
    assert isinstance(first, Cells)
    assert isinstance(empty, Cells)
    assert first.centers.tolist() == [[-0.375, -0.375, -0.375], [0.375, -0.125, 0.125]]
    assert (first.side, len(empty.centers)) == (0.25, 0)
    feats = torch.tensor([[0.0, 5, 1], [4, 0, 0], [4, 0, 0], [2, 2, 2]])
    latents = StructuredLatents(coords=COORDS, feats=feats, num_frames=3, resolution=4)
    shapes = SHOWN[StructuredLatents](latents)
    before, after = shapes.at(0), shapes.at(2)
    assert isinstance(before, Cells)
    assert isinstance(after, Cells)
    assert np.array_equal(before.colors[1], after.colors[0]), "the same latent has the same color in each frame"
    assert not np.allclose(before.colors[0], before.colors[1])


def test_gaussians_have_the_covariances_of_their_axes() -> None:
    clip = lopsided(4, 0, 6)
    shapes = SHOWN[GaussianClip](clip)
    shape = shapes.at(2)
    assert isinstance(shape, Splats)
    assert (shapes.num_frames, shape.centers.shape, shape.opacities.shape) == (3, (6, 3), (6,))
    spread = np.sqrt(np.linalg.eigvalsh(shape.covariances)[:, ::-1])
    assert np.allclose(spread, clip.frame(2).scales.numpy(), rtol=1e-3)
    along = np.linalg.eigh(shape.covariances)[1][:, :, -1]  # the longest axis, which is the first
    w, x, y, z = clip.frame(2).quats.numpy().T
    first = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=-1)
    assert np.allclose(np.abs((along * first).sum(1)), 1, atol=1e-3)


def test_meshes_are_taken_frame_by_frame() -> None:
    shape = SHOWN[MeshClip](boxes(3)).at(1)
    assert isinstance(shape, Surface)
    assert (shape.vertices.shape, shape.faces.max(), shape.texture.shape) == ((24, 3), 23, (48, 48, 3))


def test_without_viser_it_says_how_to_get_it(inflated_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ss4d.pipelines.view.viser_package.find_spec", lambda name: None)
    ended = CliRunner().invoke(app, ["view", str(inflated_run), "--live", "--no-open"])
    assert (ended.exit_code, ended.output.count("\n")) == (1, 1)
    assert "pip install '.[viewer]' in the checkout" in ended.output


@pytest.fixture
def growing(inflated_run: Path, tmp_path: Path) -> Path:
    """A run that has only cut its object out; `decoding` is going to be something else than it was."""
    shutil.copytree(inflated_run.parents[1], tmp_path / "out")
    run = tmp_path / "out" / "runs" / inflated_run.name
    content = json.loads((run / "run.json").read_text())
    content["stages"] = {name: content["stages"][name] for name in ("segmentation", "camera", "decoding")}
    content["stages"]["decoding"]["key"] = "d" * 64
    (run / "run.json").write_text(json.dumps(content))
    return run


def put(run: Path, stage: str, value: GaussianClip) -> None:
    key = open_run(run)[stage].record.key
    with open_run(run)[stage].store.create(ArtifactRef(stage, key)) as writer:
        write_value(writer, value)
        writer.commit({"values": {}})


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    driver = start_browser(tmp_path / "profile", "--window-size=700,500")
    yield driver
    driver.quit()


@with_viser
def test_a_stage_appears_once_it_is_stored_and_its_frames_are_shown(growing: Path, browser: webdriver.Chrome) -> None:
    from ss4d.pipelines.view.live import LiveView

    told: list[str] = []
    live = LiveView(growing, None, 0, told.append)
    try:
        browser.get(live.address)
        live.look()
        live.draw()
        assert (dict(live.layers), told) == ({}, [])
        before = shot(browser)
        put(growing, "decoding", lopsided(600, 0, 500, 700))
        live.look()
        live.draw()
        assert (list(live.layers), live.num_frames, told) == (["decoding"], 4, ["decoding is shown: 4 frames"])
        wait(browser, lambda: colorful(shot(browser)) > colorful(before) + 500)
        first = shot(browser)
        live.show(1)
        live.draw()
        wait(browser, lambda: colorful(shot(browser)) < colorful(first) / 4)
        live.show(3)
        live.draw()
        wait(browser, lambda: colorful(shot(browser)) > 500)
    finally:
        live.close()


def shot(browser: webdriver.Chrome) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")).astype(int)


def colorful(picture: np.ndarray) -> int:
    """How many pixels are not gray; viser's own controls have few."""
    return int((np.ptp(picture, axis=-1) > 60).sum())
