"""A place in the texture for every triangle of a surface."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np

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
    """

    vertices: Floats
    normals: Floats
    uv: Floats
    faces: Integers


def unwrap(shell: Shell, normals: Floats, size: int) -> Atlas:
    """Cuts a surface into charts for a square texture with sides of `size` pixels (xatlas)."""
    package = import_module("xatlas")
    atlas = package.Atlas()
    atlas.add_mesh(shell.vertices, shell.faces.astype(np.uint32), normals)
    charts, packing = package.ChartOptions(), package.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding, packing.bilinear = size, 2, True
    atlas.generate(charts, packing)
    rows, faces, uv = atlas[0]
    rows = rows.astype(np.int64)
    return Atlas(shell.vertices[rows], normals[rows], uv.astype(np.float32), faces.astype(np.int32))
