"""How far away the surface of Gaussians is: of the front alone, where something shows behind it, too."""

import numpy as np
import pytest
import torch

from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.surface_depth import surface_depth
from ss4d.stages.types import GaussianClip

CAMERA = orbit_camera(0, 0, size=40)  # at y = 2, looking along -y


def walls(*walls: tuple[float, float]) -> GaussianClip:
    """A row of overlapping Gaussians at each (y, opacity)."""
    line = torch.linspace(-0.4, 0.4, 17)
    x, z = torch.meshgrid(line, line, indexing="ij")
    means = [torch.stack([x.reshape(-1), torch.full((x.numel(),), y), z.reshape(-1)], dim=1) for y, _ in walls]
    opacities = [torch.full((x.numel(),), opacity) for _, opacity in walls]
    count = sum(map(len, means))
    return GaussianClip(
        means=torch.cat(means),
        scales=torch.tensor([0.05, 0.001, 0.05]).repeat(count, 1),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        colors=torch.ones(count, 3),
        opacities=torch.cat(opacities),
        offsets=torch.tensor([0, count]),
    )


@pytest.mark.parametrize("opacity", [0.98, 0.4])
def test_a_wall_is_as_far_away_as_it_is_whatever_stands_behind(opacity: float) -> None:
    depth = surface_depth(walls((0.3, opacity), (-0.3, 0.98)), CAMERA)
    assert depth[20, 20] == pytest.approx(1.7, abs=1e-3)
    assert np.isinf(depth[0, 0])


def test_what_takes_less_than_half_of_the_light_is_no_surface() -> None:
    faint = walls((0.3, 0.02))
    assert np.isinf(surface_depth(faint, CAMERA)).all()
    before = surface_depth(walls((0.3, 0.02), (-0.3, 0.98)), CAMERA)[20, 20]
    assert 2.2 < before < 2.3


def test_no_gaussians_are_no_surface() -> None:
    nothing = walls((0.0, 0.9)).chosen(slice(0, 0), torch.tensor([0, 0]))
    assert np.isinf(surface_depth(nothing, CAMERA)).all()
