"""What values of stages look like in space, frame by frame: cells in colors, Gaussians, textured triangles.

All of it is in the grid that the model works in, before an asset is turned upright. `SHOWN` is the one place that says
how values of each type are shown, whichever stage gives them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.pipelines.inspect.drawing import PrincipalColors, height_colors
from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.types import (
    FittedGaussians,
    FittedVoxels,
    GaussianClip,
    MeshClip,
    StructuredLatents,
    Value,
    Voxels,
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cells:
    """Occupied cells.

    Attributes:
        centers: (n, 3).
        colors: (n, 3), 0 to 1.
        side: of a cell.
    """

    centers: Floats
    colors: Floats
    side: float


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians.

    Attributes:
        centers: (n, 3).
        covariances: (n, 3, 3).
        colors: (n, 3), 0 to 1.
        opacities: (n,).
    """

    centers: Floats
    covariances: Floats
    colors: Floats
    opacities: Floats


@dataclass(frozen=True, eq=False)
class Surface:
    """Textured triangles.

    Attributes:
        vertices: (v, 3).
        faces: (f, 3) of vertices.
        uv: (v, 2), from the left and from the top of the texture.
        texture: (s, s, 3), 0 to 255.
    """

    vertices: Floats
    faces: NDArray[np.int32]
    uv: Floats
    texture: NDArray[np.uint8]


Shape = Cells | Splats | Surface


class Shapes(Protocol):
    """A value over time."""

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""

    def at(self, t: int) -> Shape:
        """What it looks like in frame `t`."""


class CellShapes:
    """Cells (n, 5) = (b, t, x, y, z) of a grid, in colors (n, 3)."""

    def __init__(self, coords: NDArray[np.int32], colors: Floats, resolution: int, num_frames: int) -> None:
        self._coords, self._colors, self._resolution = coords, colors, resolution
        self.num_frames = num_frames

    def at(self, t: int) -> Cells:
        """The cells of frame `t`."""
        mine = self._coords[:, 1] == t
        centers = ((self._coords[mine, 2:] + 0.5) / self._resolution - 0.5).astype(np.float32)
        return Cells(centers, self._colors[mine], 1 / self._resolution)


class GaussianShapes:
    """A clip's Gaussians."""

    def __init__(self, clip: GaussianClip) -> None:
        self._clip, self.num_frames = clip, clip.num_frames

    def at(self, t: int) -> Splats:
        """Those of frame `t`."""
        frame = self._clip.frame(t)
        axes = quaternion_to_matrix(frame.quats) * frame.scales[:, None, :]
        covariances = torch.einsum("nik,njk->nij", axes, axes)
        return Splats(frame.means.numpy(), covariances.numpy(), frame.colors.numpy(), frame.opacities.numpy())


class MeshShapes:
    """A clip's meshes."""

    def __init__(self, clip: MeshClip) -> None:
        self._clip, self.num_frames = clip, clip.num_frames

    def at(self, t: int) -> Surface:
        """That of frame `t`."""
        frame = self._clip.frame(t)
        return Surface(frame.vertices.numpy(), frame.faces.numpy(), frame.uv.numpy(), frame.texture[0].numpy())


def structure_shapes(voxels: Voxels) -> CellShapes:
    """The occupied cells in colors of their height."""
    coords = voxels.coords.numpy()
    return CellShapes(coords, height_colors(coords[:, 2:], voxels.resolution), voxels.resolution, voxels.num_frames)


def latent_shapes(latents: StructuredLatents) -> CellShapes:
    """The occupied cells in colors of their latents' principal components, the same over all frames."""
    feats = latents.feats.numpy()
    return CellShapes(latents.coords.numpy(), PrincipalColors(feats)(feats), latents.resolution, latents.num_frames)


SHOWN: Mapping[type[Value], Callable[[Any], Shapes]] = {
    Voxels: structure_shapes,
    FittedVoxels: structure_shapes,
    StructuredLatents: latent_shapes,
    GaussianClip: GaussianShapes,
    FittedGaussians: GaussianShapes,
    MeshClip: MeshShapes,
}
