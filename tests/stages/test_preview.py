"""Previews: the right frame, from the right camera, in bytes."""

import torch

from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.preview import render_frames
from ss4d.stages.types import GaussianClip


def test_each_shot_shows_its_frame_from_its_camera() -> None:
    """Frame 0 holds a red Gaussian at the left of a camera on +y, frame 1 nothing, frame 2 a bright blue one above."""
    gaussians = GaussianClip(
        means=torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.0, 0.3]]),
        scales=torch.full((2, 3), 0.05),
        quats=torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4).clone(),
        colors=torch.tensor([[1.0, 0, 0], [0, 0, 7.0]]),
        opacities=torch.full((2,), 0.99),
        offsets=torch.tensor([0, 1, 1, 2]),
    )
    camera, behind = orbit_camera(0, 0, size=41), orbit_camera(180, 0, size=41)
    shots = [(0, camera), (0, behind), (1, camera), (2, camera)]
    left, right, empty, above = render_frames(gaussians, shots, render=rasterize, background=(0.0, 0.0, 0.0))
    assert left.dtype == torch.uint8
    assert left.shape == (41, 41, 3)
    shift = round(camera.focal * 0.3 / 2)
    assert left[20, 20 - shift, 0] > 200
    assert right[20, 20 + shift, 0] > 200
    assert not left[..., 1:].any()
    assert not left[:, 21:].any()
    assert not empty.any()
    assert above[20 - shift, 20, 2] == 255, "light beyond white is white, not wrapped around"


def test_the_background_is_white_unless_told() -> None:
    nothing = GaussianClip(
        means=torch.zeros(0, 3),
        scales=torch.zeros(0, 3),
        quats=torch.zeros(0, 4),
        colors=torch.zeros(0, 3),
        opacities=torch.zeros(0),
        offsets=torch.tensor([0, 0]),
    )
    (picture,) = render_frames(nothing, [(0, orbit_camera(0, 0, size=8))], render=rasterize)
    assert (picture == 255).all()
