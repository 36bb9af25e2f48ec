"""The mesh stage: a clip of Gaussians becomes a closed, textured mesh for each frame."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.stages.errors import InputError
from ss4d.stages.meshing.atlas import Atlas, unwrap
from ss4d.stages.meshing.bake import bake
from ss4d.stages.meshing.config import MeshConfig, chosen_surface
from ss4d.stages.meshing.fusion import fuse
from ss4d.stages.meshing.isosurface import ISO_SURFACES, IsoSurface
from ss4d.stages.meshing.packages import check_packages
from ss4d.stages.meshing.shell import Shell, simplified
from ss4d.stages.meshing.views import box_of, cameras_around
from ss4d.stages.ops.compiled import spread
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.ops.triangles import SeeTriangles, see_triangles
from ss4d.stages.types import Camera, GaussianClip, MeshClip, Progress, silent

if TYPE_CHECKING:
    from ss4d.stages.meshing.topology import MovedShell

LOG = logging.getLogger("ss4d")
PIXELS = 3  # of a picture's side, for each cell along the object's longest side


@dataclass(frozen=True, eq=False)
class FoundSurface:
    """A frame's surface, the cameras that it was found by, and the cell of the grid that it comes from, world units."""

    shell: Shell
    cameras: Sequence[Camera]
    cell: float


def make_meshes(
    config: MeshConfig,
    gaussians: GaussianClip,
    *,
    render: Rasterize,
    see: SeeTriangles = see_triangles,
    progress: Progress = silent,
) -> MeshClip:
    """A closed mesh for each frame, painted with what the Gaussians look like; frames are made side by side.

    A frame is empty without Gaussians, and where none of its pixels is half opaque from any side. With
    `config.topology` "fixed" all frames are one mesh that moves, unless the clip changes its topology.

    Args:
        config: how finely.
        gaussians: the clip.
        render: draws Gaussians.
        see: draws triangles.
        progress: told after each frame of each step.

    Raises:
        InputError: a package is not installed.
    """
    surface = _iso_surface(config)
    frames = [gaussians.frame(t) for t in range(gaussians.num_frames)]
    fixed = config.topology == "fixed" and len(frames) > 1
    told = _Steps(progress, (3 if fixed else 2) * len(frames))
    found = spread([partial(find_surface, config, frame, surface) for frame in frames], told.step(0))
    faint = [t for t, each in enumerate(found) if each is None and len(frames[t].means)]
    if faint:
        LOG.warning("mesh: %d of %d frames are too faint for a surface: their meshes are empty", len(faint), len(found))
    moved = _moved(found, told.step(len(frames))) if fixed else None
    atlases = [None] * len(frames) if moved is None else _moved_atlases(config, moved)
    jobs = [
        partial(_painted, config, frame, own, atlas, render, see)
        for frame, own, atlas in zip(frames, found, atlases, strict=True)
    ]
    made = MeshClip.joined(spread(jobs, told.step(told.total - len(frames))))
    return made if moved is None else replace(made, deviation=torch.from_numpy(moved.deviation), one_topology=True)


@dataclass(frozen=True)
class _Steps:
    """Tells of several steps as of one."""

    progress: Progress
    total: int

    def step(self, before: int) -> Progress:
        """The progress of a step, `before` which so much is done."""
        return lambda done, _: self.progress(before + done, self.total)


def find_surface(config: MeshConfig, frame: GaussianClip, surface: IsoSurface) -> FoundSurface | None:
    """The surface of a clip of one frame; None if nothing of it is seen."""
    box = box_of(frame)
    if box is None:
        return None
    cameras = cameras_around(box, config.views, PIXELS * config.grid)
    field = fuse(frame, box, cameras, config.grid)
    if field.values.min() >= 0:
        return None
    vertices, faces = surface(field.values)
    shell = simplified(Shell(field.origin + np.float32(field.cell) * vertices, faces), config.faces, field.cell)
    return FoundSurface(shell, cameras, field.cell)


def _moved(found: Sequence[FoundSurface | None], progress: Progress) -> "MovedShell | None":
    moved_shell = import_module("ss4d.stages.meshing.topology").moved_shell  # needs scipy, as nothing else does
    moved: MovedShell | None = moved_shell([own and own.shell for own in found], progress=progress)
    return moved


def _moved_atlases(config: MeshConfig, moved: "MovedShell") -> list[Atlas]:
    """The key frame's charts on each frame of a surface that moves."""
    charts = unwrap(moved.frame(moved.key), config.texture)
    return [charts.on(moved.frame(t)) for t in range(len(moved.vertices))]


def _painted(
    config: MeshConfig,
    frame: GaussianClip,
    found: FoundSurface | None,
    atlas: Atlas | None,
    render: Rasterize,
    see: SeeTriangles,
) -> MeshClip:
    """The mesh of a clip of one frame, as a clip of one frame; on charts of its own where no atlas is given."""
    if found is None:
        return _empty(config.texture)
    atlas = atlas or unwrap(found.shell, config.texture)
    return textured(atlas, bake(frame, atlas, found.cameras, config.texture, found.cell, render, see))


def textured(atlas: Atlas, texture: NDArray[np.uint8]) -> MeshClip:
    """A clip of one frame: the surface that an atlas lies on, with its texture (s, s, 3)."""
    return MeshClip(
        vertices=torch.from_numpy(atlas.vertices),
        uv=torch.from_numpy(atlas.uv),
        faces=torch.from_numpy(atlas.faces),
        texture=torch.from_numpy(texture)[None],
        deviation=torch.zeros(1),
        vertex_offsets=torch.tensor([0, len(atlas.vertices)]),
        face_offsets=torch.tensor([0, len(atlas.faces)]),
    )


def _empty(size: int) -> MeshClip:
    return MeshClip(
        vertices=torch.zeros(0, 3),
        uv=torch.zeros(0, 2),
        faces=torch.zeros(0, 3, dtype=torch.int32),
        texture=torch.zeros(1, size, size, 3, dtype=torch.uint8),
        deviation=torch.zeros(1),
        vertex_offsets=torch.zeros(2, dtype=torch.int64),
        face_offsets=torch.zeros(2, dtype=torch.int64),
    )


def _iso_surface(config: MeshConfig) -> IsoSurface:
    check_packages()
    try:
        return ISO_SURFACES[chosen_surface(config.surface)]()
    except ImportError as error:
        raise InputError(
            f"mesh.surface={config.surface} needs the package kaolin, which is not installed or does not load here "
            f"({error}): choose marching_cubes, or see docs/gpu.md for how to install it"
        ) from error
