"""The mesh stage with one topology: a mesh that looks like the Gaussians, or the meshes that there would be anyway."""

import logging

import numpy as np
import pytest
import torch

from ss4d.stages.inflation import facing
from ss4d.stages.meshing.config import MeshConfig
from ss4d.stages.meshing.mesh import make_meshes
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip, MeshClip
from tests.helpers.true_gaussians import likeness

FREE = MeshConfig(grid=24, views=14, faces=600, texture=96, surface="marching_cubes")
FIXED = FREE.model_copy(update={"topology": "fixed"})
COUNT = 1500


def ball(center: float, radius: float) -> GaussianClip:
    """Gaussians all over a ball on the x axis; its colors follow the direction from the middle."""
    rows = torch.arange(COUNT) + 0.5
    height, angle = 1 - 2 * rows / COUNT, rows * 2.399963
    flat = (1 - height**2).sqrt()
    normals = torch.stack([flat * angle.cos(), flat * angle.sin(), height], dim=1)
    return GaussianClip(
        means=normals * radius + torch.tensor([center, 0.0, 0.0]),
        scales=torch.tensor([0.05, 0.05, 0.01]).repeat(COUNT, 1) * radius,
        quats=facing(normals),
        colors=normals / 2 + 0.5,
        opacities=torch.full((COUNT,), 0.98),
        offsets=torch.tensor([0, COUNT]),
    )


def clip(*frames: list[GaussianClip]) -> GaussianClip:
    parts = [part for frame in frames for part in frame]
    names = ("means", "scales", "quats", "colors", "opacities")
    counts = torch.tensor([0] + [sum(len(part.means) for part in frame) for frame in frames])
    return GaussianClip(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}, offsets=counts.cumsum(0)
    )


GROWING = clip([ball(0.0, 0.2)], [ball(0.05, 0.24)], [ball(0.1, 0.28)])
SPLITTING = clip([ball(0.0, 0.2)], [ball(0.02, 0.2)], [ball(-0.25, 0.16), ball(0.25, 0.16)])


def made(config: MeshConfig, gaussians: GaussianClip) -> MeshClip:
    return make_meshes(config, gaussians, render=rasterize)


def test_all_frames_are_one_mesh_that_looks_like_the_gaussians(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ss4d")
    told: list[tuple[int, int]] = []
    meshes = make_meshes(FIXED, GROWING, render=rasterize, progress=lambda *step: told.append(step))
    assert told == [(step, 9) for step in range(1, 10)]
    assert meshes.one_topology
    frames = [meshes.frame(t) for t in range(3)]
    for t, frame in enumerate(frames):
        assert torch.equal(frame.faces, frames[0].faces)
        assert torch.equal(frame.uv, frames[0].uv)
        radius = (frame.vertices - torch.tensor([0.05 * t, 0, 0])).norm(dim=1)
        assert radius.mean() == pytest.approx(0.2 + 0.04 * t, abs=0.01)
        assert likeness(frame, GROWING.frame(t), size=96, views=2) > 27
    assert sorted(meshes.deviation.tolist())[0] == pytest.approx(0, abs=1e-6), "the key frame is itself"
    assert 1e-5 < float(meshes.deviation.max()) < 0.003
    (record,) = caplog.records
    assert "is all frames'" in record.getMessage()


def test_a_clip_that_changes_its_topology_keeps_the_meshes_that_it_would_have(caplog: pytest.LogCaptureFixture) -> None:
    fixed = made(FIXED, SPLITTING)
    assert "changes its topology, and every frame keeps its own mesh" in caplog.text
    free = made(FREE, SPLITTING)
    assert not fixed.one_topology
    assert not fixed.deviation.any()
    for name in MeshClip.specs():
        assert torch.equal(getattr(fixed, name), getattr(free, name))


def test_a_clip_of_one_frame_is_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    single = made(FIXED, GROWING.frame(0))
    assert not single.one_topology
    assert np.array_equal(single.vertices, made(FREE, GROWING.frame(0)).vertices)
    assert not caplog.records
