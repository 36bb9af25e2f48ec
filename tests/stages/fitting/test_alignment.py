"""The camera fit brings outlines onto the masks, and leaves the camera alone where that makes it no better."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from ss4d.stages.data.clip import ClipSpec, make_clip
from ss4d.stages.evaluation.baselines import truth_answer
from ss4d.stages.fitting import alignment
from ss4d.stages.fitting.alignment import fit_camera
from ss4d.stages.fitting.config import CameraFitConfig
from ss4d.stages.fitting.pictures import drawn, unpacked
from ss4d.stages.input_camera import View, focal_of, in_grid, opening, upright_rotation
from ss4d.stages.types import Clip, GaussianClip, InputCamera
from tests.helpers.pretend_device import PretendDevice

CPU = torch.device("cpu")
FRAMES, SIZE = 3, 128
TRUE = View(yaw=20.0, pitch=10.0, distance=2.0, focal=1.6, shift=(0.02, -0.03))


@cache
def asset() -> GaussianClip:
    spec = ClipSpec(seed=2, family="walker", num_frames=FRAMES, input_size=32, num_views=1, view_size=16, resolution=16)
    return truth_answer(make_clip(spec)).gaussians


def camera_of(view: View, upright: torch.Tensor | None = None) -> InputCamera:
    return InputCamera(
        yaw=torch.tensor(view.yaw),
        pitch=torch.tensor(view.pitch),
        distance=torch.tensor(view.distance),
        fov=torch.tensor(opening(view.focal)),
        shift=torch.tensor(view.shift),
        upright=torch.eye(3) if upright is None else upright,
        overlap=torch.full((FRAMES,), 0.5),
        spread=torch.zeros(2),
    )


def clip_from(camera: InputCamera) -> Clip:
    """What the camera sees of the asset, as the first stage gives it."""
    gaussians, offsets = unpacked(asset(), CPU)
    with torch.no_grad():
        pictures = drawn(gaussians, offsets, torch.arange(FRAMES), [in_grid(camera, SIZE)] * FRAMES)
    layers = (255 * pictures.clamp(0, 1)).round().byte()
    return Clip(
        rgb=layers[..., :3].contiguous(),
        alpha=layers[..., 3].contiguous(),
        crop=torch.tensor([0, 0, SIZE, SIZE]),
        confidence=torch.ones(FRAMES),
        method="alpha",
        fps=24.0,
    )


@pytest.mark.parametrize("turned", [False, True])
def test_size_and_place_are_found_and_the_direction_stays(turned: bool, caplog: pytest.LogCaptureFixture) -> None:
    upright = upright_rotation(35.0, 15.0) if turned else None
    true = camera_of(TRUE, upright)
    wrong = camera_of(replace(TRUE, focal=1.07 * TRUE.focal, shift=(0.05, -0.01)), upright)
    with caplog.at_level("INFO", "ss4d"):
        found = fit_camera(CameraFitConfig(), asset(), clip_from(true), wrong, CPU)
    assert focal_of(found) == pytest.approx(TRUE.focal, rel=0.02)
    assert torch.allclose(found.shift, true.shift, atol=0.004)
    for name in ("yaw", "pitch", "distance", "upright", "spread"):
        assert torch.equal(getattr(found, name), getattr(wrong, name)), name
    assert found.overlap.shape == (FRAMES,)
    assert found.overlap.min() > 0.95
    assert "% larger" in caplog.text


def test_a_given_field_of_view_stays() -> None:
    wrong = camera_of(replace(TRUE, shift=(0.05, -0.01)))
    found = fit_camera(CameraFitConfig(fov=False), asset(), clip_from(camera_of(TRUE)), wrong, CPU)
    assert focal_of(found) == pytest.approx(TRUE.focal, rel=1e-6)
    assert torch.allclose(found.shift, torch.tensor(TRUE.shift), atol=0.004)


@pytest.mark.parametrize("steps", [0, 20])
def test_a_camera_that_gets_no_better_stays_as_it_was(
    steps: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    true = camera_of(TRUE)
    if steps:  # a fit that goes wrong
        moved = alignment._moved

        def wrong(*given: Any) -> InputCamera:
            camera = moved(*given)
            return replace(camera, shift=camera.shift + torch.tensor([0.1, 0.0]))

        monkeypatch.setattr(alignment, "_moved", wrong)
    with caplog.at_level("INFO", "ss4d"):
        found = fit_camera(CameraFitConfig(steps=steps), asset(), clip_from(true), true, CPU)
    assert found is true
    assert "stays as it was" in caplog.text


def test_an_asset_without_gaussians_tells_nothing() -> None:
    whole = asset()
    empty = GaussianClip(
        **{name: getattr(whole, name)[:0] for name in ("means", "scales", "quats", "colors", "opacities")},
        offsets=torch.zeros(FRAMES + 1, dtype=torch.int64),
    )
    true = camera_of(TRUE)
    assert fit_camera(CameraFitConfig(), empty, clip_from(true), true, CPU) is true


def test_the_same_bits_again_and_all_steps_are_told() -> None:
    wrong, seen = camera_of(replace(TRUE, focal=1.05 * TRUE.focal)), clip_from(camera_of(TRUE))
    told: list[tuple[int, int]] = []
    config = CameraFitConfig(steps=6)
    first = fit_camera(config, asset(), seen, wrong, CPU, progress=lambda *step: told.append(step))
    again = fit_camera(config, asset(), seen, wrong, CPU)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("fov", "shift", "overlap"))
    assert told == [(step, 6) for step in range(1, 7)]
    assert not math.isclose(float(first.fov), float(wrong.fov))


def test_what_needs_no_gradients_leaves_nothing_on_the_cpu() -> None:
    true = camera_of(TRUE)
    with PretendDevice(values=True):
        found = fit_camera(CameraFitConfig(steps=0), asset(), clip_from(true), true, "cuda:0")
    assert found is true
