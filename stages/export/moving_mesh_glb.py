"""One textured mesh that moves as an animated GLB: its shape in each later frame is a morph target.

The weight of a frame's target is 1 at that frame's time, when all others are 0. In between they change linearly, so
that a player that shows more pictures than the clip has frames moves the mesh smoothly. The last frame stays as long as
the others. There is one texture, the mean of all frames', since glTF cannot exchange it over time. The material knows
no light, so there are no normals. See `mesh_glb` for axes and material.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.export.glb_file import GlbArrays, write_glb
from ss4d.stages.export.glb_mesh import materials, mesh_parts, picture, places, primitive
from ss4d.stages.types import MeshClip, Progress

LOG = logging.getLogger("ss4d")

MOST_TARGETS = 256  # that every program plays which follows WebGL 2 or Filament; glTF itself has no limit


def write_moving_mesh(path: Path, meshes: MeshClip, fps: float, progress: Progress) -> None:
    """Writes the file; the meshes are one topology, in the axes of glTF.

    Raises:
        InputError: it would be larger than a GLB can be.
    """
    first, shapes = meshes.frame(0), meshes.vertices.view(meshes.num_frames, -1, 3)
    if len(shapes) - 1 > MOST_TARGETS:
        LOG.warning(
            "%s has %d morph targets, and some programs play no more than %d: mesh.topology=free has no such limit",
            path.name,
            len(shapes) - 1,
            MOST_TARGETS,
        )
    texture = picture(meshes.texture.float().mean(0).round().byte())
    arrays = GlbArrays()
    document = _document(arrays, first, shapes, len(texture), fps)
    write_glb(path, document, arrays, _parts(first, shapes, texture, fps, progress))


def _document(arrays: GlbArrays, first: MeshClip, shapes: Tensor, size: int, fps: float) -> dict[str, Any]:
    """Declares the arrays, whose bytes `_parts` gives in the same order; `size` is that of the texture's file."""
    mesh = primitive(arrays, first, 0)
    mesh["targets"] = [{"POSITION": places(arrays, shape - shapes[0])} for shape in shapes[1:]]
    names = [f"frame{t + 1:04d}" for t in range(1, len(shapes))]
    look = materials([arrays.add_bytes(size)])
    times, weights = _schedule(len(shapes), fps)
    sampler = {
        "input": arrays.add(len(times), "SCALAR", min=[float(times[0])], max=[float(times[-1])]),
        "output": arrays.add(weights.size, "SCALAR"),
        "interpolation": "LINEAR",
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    return {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "object", "mesh": 0}],
        "meshes": [{"primitives": [mesh], "weights": [0] * len(names), "extras": {"targetNames": names}}],
        **look,
        "animations": [{"name": "clip", "samplers": [sampler], "channels": [channel]}],
    }


def _parts(first: MeshClip, shapes: Tensor, texture: bytes, fps: float, progress: Progress) -> Iterator[bytes]:
    yield from mesh_parts(first)
    progress(1, len(shapes))
    for t, shape in enumerate(shapes[1:], start=1):
        yield (shape - shapes[0]).numpy().astype("<f4").tobytes()
        progress(t + 1, len(shapes))
    yield texture
    for column in _schedule(len(shapes), fps):
        yield column.astype("<f4").tobytes()


def _schedule(num_frames: int, fps: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The times (k) of the animation in seconds, and the weights of the targets (k, n) then."""
    frames = np.minimum(np.arange(num_frames + 1), num_frames - 1)
    return np.arange(num_frames + 1) / fps, np.eye(num_frames)[frames, 1:]
