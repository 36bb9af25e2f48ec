"""A closed surface with fewer triangles, still closed."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ss4d.stages.data.mesh import mean_normals
from ss4d.stages.errors import InputError
from ss4d.stages.ops.triangles import Floats, Integers

FIRST_STEP = 0.02  # cells that the surface may move at first
GROWTH = 1.5  # of that from step to step
LEAST_PART = 1e-3  # of the volume of the largest part, below which a loose one is left out
APART = 0.01  # cells between vertices that lie at one place


@dataclass(frozen=True, eq=False)
class Shell:
    """A closed surface: vertices (v, 3) float32 and faces (f, 3) int32, counterclockwise from outside."""

    vertices: Floats
    faces: Integers


def simplified(shell: Shell, at_most: int, cell: float) -> Shell:
    """The surface with at most so many triangles, or as few as it can have; without specks beside the object.

    No two vertices lie at one place, so that it is closed to programs that tell vertices by their places, too.

    Args:
        shell: a surface that is closed.
        at_most: triangles.
        cell: of the grid that it came from.

    Raises:
        InputError: it is not closed.
    """
    package = import_module("manifold3d")
    solid = package.Manifold(package.Mesh(shell.vertices, shell.faces.astype(np.uint32)))
    if solid.status() != package.Error.NoError:
        raise InputError("the surface that was found is not closed: choose mesh.surface=marching_cubes")
    solid = _without_specks(solid)
    step = FIRST_STEP * cell
    while solid.num_tri() > at_most:
        coarser = solid.simplify(step)
        if coarser.is_empty():
            break
        solid, step = coarser, GROWTH * step
    mesh = solid.to_mesh()
    vertices = np.ascontiguousarray(mesh.vert_properties[:, :3], np.float32)
    return _apart(Shell(vertices, np.ascontiguousarray(mesh.tri_verts, np.int32)), APART * cell)


def _without_specks(solid: Any) -> Any:
    parts = solid.decompose()
    volumes = [part.volume() for part in parts]
    kept = [part for part, volume in zip(parts, volumes, strict=True) if volume > LEAST_PART * max(volumes)]
    return type(solid).compose(kept) if kept and len(kept) < len(parts) else solid


def _apart(shell: Shell, distance: float) -> Shell:
    """The surface with a little room where it touches itself: there, vertices go inward along their normals."""
    _, which, counts = np.unique(shell.vertices, axis=0, return_inverse=True, return_counts=True)
    touching = counts[which.reshape(-1)] > 1
    if not touching.any():
        return shell
    vertices = shell.vertices.copy()
    vertices[touching] -= np.float32(distance) * mean_normals(vertices[None], shell.faces)[0][touching]
    return Shell(vertices, shell.faces)
