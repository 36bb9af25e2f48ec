"""The mesh stage: a clip of Gaussians becomes a closed, textured mesh for each frame."""

import logging
from functools import partial

import numpy as np
import torch

from ss4d.stages.data.mesh import mean_normals
from ss4d.stages.errors import InputError
from ss4d.stages.meshing.atlas import unwrap
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
from ss4d.stages.types import GaussianClip, MeshClip, Progress, silent

LOG = logging.getLogger("ss4d")
PIXELS = 3  # of a picture's side, for each cell along the object's longest side


def make_meshes(
    config: MeshConfig,
    gaussians: GaussianClip,
    *,
    render: Rasterize,
    see: SeeTriangles = see_triangles,
    progress: Progress = silent,
) -> MeshClip:
    """A closed mesh for each frame, painted with what the Gaussians look like; frames are made side by side.

    A frame is empty without Gaussians, and where none of its pixels is half opaque from any side.

    Args:
        config: how finely.
        gaussians: the clip.
        render: draws Gaussians.
        see: draws triangles.
        progress: told after each frame.

    Raises:
        InputError: a package is not installed.
    """
    surface = _iso_surface(config)
    frames = [gaussians.frame(t) for t in range(gaussians.num_frames)]
    jobs = [partial(make_mesh, config, frame, surface, render, see) for frame in frames]
    made = spread(jobs, progress)
    faint = [t for t, mesh in enumerate(made) if not len(mesh.faces) and len(frames[t].means)]
    if faint:
        LOG.warning("mesh: %d of %d frames are too faint for a surface: their meshes are empty", len(faint), len(made))
    return MeshClip.joined(made)


def make_mesh(
    config: MeshConfig, frame: GaussianClip, surface: IsoSurface, render: Rasterize, see: SeeTriangles
) -> MeshClip:
    """The mesh of a clip of one frame, as a clip of one frame."""
    box = box_of(frame)
    if box is None:
        return _empty(config.texture)
    cameras = cameras_around(box, config.views, PIXELS * config.grid)
    field = fuse(frame, box, cameras, config.grid)
    if field.values.min() >= 0:
        return _empty(config.texture)
    vertices, faces = surface(field.values)
    shell = simplified(Shell(field.origin + np.float32(field.cell) * vertices, faces), config.faces, field.cell)
    atlas = unwrap(shell, mean_normals(shell.vertices[None], shell.faces)[0], config.texture)
    texture = bake(frame, atlas, cameras, config.texture, field.cell, render, see)
    return MeshClip(
        vertices=torch.from_numpy(atlas.vertices),
        uv=torch.from_numpy(atlas.uv),
        faces=torch.from_numpy(atlas.faces),
        texture=torch.from_numpy(texture)[None],
        vertex_offsets=torch.tensor([0, len(atlas.vertices)]),
        face_offsets=torch.tensor([0, len(atlas.faces)]),
    )


def _empty(size: int) -> MeshClip:
    return MeshClip(
        vertices=torch.zeros(0, 3),
        uv=torch.zeros(0, 2),
        faces=torch.zeros(0, 3, dtype=torch.int32),
        texture=torch.zeros(1, size, size, 3, dtype=torch.uint8),
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
