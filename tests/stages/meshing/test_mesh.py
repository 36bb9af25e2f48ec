"""Meshes of Gaussians whose surface is known: closed, where it is, and looking like what they were made from."""

import logging
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
import trimesh

from ss4d.stages.errors import InputError
from ss4d.stages.meshing import config as meshing_config
from ss4d.stages.meshing import packages
from ss4d.stages.meshing.config import MeshConfig, chosen_surface
from ss4d.stages.meshing.isosurface import ISO_SURFACES, marching_cubes
from ss4d.stages.meshing.mesh import make_meshes
from ss4d.stages.meshing.shell import Shell, simplified
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip, MeshClip
from tests.helpers.true_gaussians import Doubles, likeness, surface_errors, true_gaussians

SMALL = MeshConfig(grid=48, views=20, faces=2500, texture=256, surface="marching_cubes")


@pytest.fixture(scope="module")
def truth() -> tuple[GaussianClip, Doubles]:
    return true_gaussians(12_000)


@pytest.fixture(scope="module")
def clip(truth: tuple[GaussianClip, Doubles]) -> GaussianClip:
    """The object, nothing, and the object in other colors, upside down."""
    frame, _ = truth
    turned = frame.means * torch.tensor([1.0, -1.0, -1.0])
    quats = frame.quats[:, [1, 0, 3, 2]] * torch.tensor([-1.0, 1.0, -1.0, 1.0])
    count = len(frame.means)
    return GaussianClip(
        means=torch.cat([frame.means, turned]),
        scales=frame.scales.repeat(2, 1),
        quats=torch.cat([frame.quats, quats]),
        colors=torch.cat([frame.colors, frame.colors.flip(1)]),
        opacities=frame.opacities.repeat(2),
        offsets=torch.tensor([0, count, count, 2 * count]),
    )


@pytest.fixture(scope="module")
def meshes(clip: GaussianClip) -> MeshClip:
    told: list[tuple[int, int]] = []
    made = make_meshes(SMALL, clip, render=rasterize, progress=lambda *step: told.append(step))
    assert told == [(step, 6) for step in range(1, 7)]
    return made


def closed(mesh: MeshClip) -> trimesh.Trimesh:
    """A frame as a program has it that tells vertices by their places."""
    made = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    made.merge_vertices(merge_tex=True, merge_norm=True)
    return made


@pytest.mark.parametrize("t", [0, 2])
def test_a_mesh_is_closed_small_and_looks_like_the_gaussians(meshes: MeshClip, clip: GaussianClip, t: int) -> None:
    mesh = meshes.frame(t)
    solid = closed(mesh)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume > 0, "its faces look outward"
    assert 1000 < len(mesh.faces) <= SMALL.faces
    assert likeness(mesh, clip.frame(t), size=128) > 26
    assert likeness(mesh, clip.frame(2 - t), size=128) < 20, "another frame looks otherwise"


def test_a_mesh_lies_where_the_surface_is(meshes: MeshClip, truth: tuple[GaussianClip, Doubles]) -> None:
    chamfer, score = surface_errors(meshes.frame(0), truth[1], within=0.02)
    assert chamfer < 0.01
    assert score > 0.97


def test_a_frame_without_gaussians_is_empty(meshes: MeshClip) -> None:
    empty = meshes.frame(1)
    assert (len(empty.vertices), len(empty.faces)) == (0, 0)
    assert not empty.texture.any()


def test_a_frame_is_the_same_alone_and_every_time(meshes: MeshClip, clip: GaussianClip) -> None:
    alone = make_meshes(SMALL, clip.frame(2), render=rasterize)
    for name in MeshClip.specs():
        assert torch.equal(getattr(alone, name), getattr(meshes.frame(2), name)), name


def test_what_is_nowhere_half_opaque_has_no_surface(clip: GaussianClip, caplog: pytest.LogCaptureFixture) -> None:
    ghost = clip.frame(0).chosen(slice(0, 50), torch.tensor([0, 50]))
    with caplog.at_level(logging.WARNING, "ss4d"):
        made = make_meshes(SMALL, replace(ghost, opacities=torch.full((50,), 0.2)), render=rasterize)
        nothing = make_meshes(SMALL, replace(ghost, opacities=torch.full((50,), 0.01)), render=rasterize)
    assert len(made.faces) == len(nothing.faces) == 0
    assert "1 of 1 frames are too faint for a surface" in caplog.text


def ball(size: int = 24) -> np.ndarray:
    """Distances to two balls that run into each other, and to a speck."""
    x, y, z = np.mgrid[:size, :size, :size].astype(np.float32)
    centers = ((8.0, 11.5, 11.5, 5.0), (15.0, 11.5, 11.5, 5.0), (20.5, 20.5, 20.5, 0.4))
    balls = [np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) - r for a, b, c, r in centers]
    return (np.minimum.reduce(balls) / 3).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("at_most", [400, 100])
def test_fewer_triangles_stay_closed_and_specks_are_left_out(at_most: int) -> None:
    vertices, faces = marching_cubes(ball())
    shell = simplified(Shell(vertices, faces), at_most, 1.0)
    solid = trimesh.Trimesh(shell.vertices, shell.faces)
    assert solid.is_watertight
    assert (len(shell.faces) <= at_most, solid.body_count) == (True, 1)
    assert len(np.unique(shell.vertices, axis=0)) == len(shell.vertices)
    assert solid.volume == pytest.approx(984, rel=0.2)  # less what lies over the chords


def test_a_surface_that_is_not_closed_is_refused() -> None:
    vertices, faces = marching_cubes(ball())
    with pytest.raises(InputError, match="not closed"):
        simplified(Shell(vertices, faces[1:]), 100, 1.0)


def test_flexicubes_finds_the_surface_that_marching_cubes_finds() -> None:
    pytest.importorskip("kaolin.ops.conversions")
    found = []
    for make in ISO_SURFACES.values():
        vertices, faces = make()(ball())
        solid = trimesh.Trimesh(vertices, faces)
        assert solid.is_watertight
        assert solid.volume > 0
        found.append(solid)
    first, second = found
    for one, other in ((first, second), (second, first)):
        points = trimesh.sample.sample_surface(one, 2000, seed=0)[0]
        assert np.abs(trimesh.proximity.signed_distance(other, points)).max() < 0.5  # cells
    assert second.volume == pytest.approx(first.volume, rel=0.05)


@pytest.mark.parametrize(("version", "chosen"), [("0.1", "marching_cubes"), ("0.18.0a1", "flexicubes")])
def test_the_surface_is_left_to_what_is_installed(version: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(meshing_config, "version", lambda name: version)
    assert chosen_surface("auto") == chosen
    assert chosen_surface("marching_cubes") == "marching_cubes"
    monkeypatch.setattr(meshing_config, "version", missing)
    assert chosen_surface("auto") == "marching_cubes"


def test_packages_that_are_missing_are_named(clip: GaussianClip, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ModuleNotFoundError("No module named 'kaolin'", name="kaolin")

    monkeypatch.setitem(ISO_SURFACES, "flexicubes", absent)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mesh.surface=flexicubes needs the package kaolin.*docs/gpu.md"):
        make_meshes(SMALL.model_copy(update={"surface": "flexicubes"}), clip, render=rasterize)
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "xatlas" else name)
    with pytest.raises(InputError, match=r"meshes need the packages xatlas: pip install '\.\[mesh\]' in the checkout"):
        make_meshes(SMALL, clip, render=rasterize)
