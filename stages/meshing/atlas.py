"""A place in the texture for every triangle of a surface."""

from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.data.mesh import mean_normals
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.ops.triangles import Floats, Integers


@dataclass(frozen=True, eq=False)
class Atlas:
    """A surface cut into charts.

    Attributes:
        vertices: (v, 3), those along seams once for each chart.
        normals: (v, 3) unit, of the surface.
        uv: (v, 2) in the texture, 0 to 1 from its left and from its top.
        faces: (f, 3).
        rows: (v,) which vertex of the surface each is.
    """

    vertices: Floats
    normals: Floats
    uv: Floats
    faces: Integers
    rows: NDArray[np.int64]

    def on(self, shell: Shell) -> "Atlas":
        """The same charts of the same triangles, whose vertices are elsewhere."""
        return replace(self, vertices=shell.vertices[self.rows], normals=_normals(shell)[self.rows])


def unwrap(shell: Shell, size: int) -> Atlas:
    """Cuts a surface into charts for a square texture with sides of `size` pixels (xatlas)."""
    normals = _normals(shell)
    package = import_module("xatlas")
    atlas = package.Atlas()
    atlas.add_mesh(shell.vertices, shell.faces.astype(np.uint32), normals)
    charts, packing = package.ChartOptions(), package.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding, packing.bilinear = size, 2, True
    atlas.generate(charts, packing)
    rows, faces, uv = atlas[0]
    rows = rows.astype(np.int64)
    return Atlas(shell.vertices[rows], normals[rows], uv.astype(np.float32), faces.astype(np.int32), rows)


def _normals(shell: Shell) -> Floats:
    normals: Floats = mean_normals(shell.vertices[None], shell.faces)[0]
    return normals
