"""The texture of a mesh, from pictures of the Gaussians that it was made from."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ss4d.stages.meshing.atlas import Atlas
from ss4d.stages.ops.compiled import kernel
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.ops.triangles import SeeTriangles, lens, project
from ss4d.stages.types import Camera, GaussianClip

HIDDEN = 1.0  # cells behind the nearest surface at which nothing is seen any more


def bake(
    frame: GaussianClip,
    atlas: Atlas,
    cameras: Sequence[Camera],
    size: int,
    cell: float,
    render: Rasterize,
    see: SeeTriangles,
) -> NDArray[np.uint8]:
    """The texture (s, s, 3): what each place of the surface looks like to the cameras that see it.

    Args:
        frame: a clip of one frame, which the pictures show.
        atlas: the surface.
        cameras: all around.
        size: pixels of a side of the texture.
        cell: of the grid that the surface came from, world units.
        render: draws Gaussians.
        see: draws triangles.
    """
    flat = np.concatenate([atlas.uv * np.float32(size), np.ones((len(atlas.uv), 1), np.float32)], axis=1)
    painted = see(flat, atlas.faces, size, size)
    texels = np.flatnonzero(painted.face.reshape(-1) >= 0)
    corners = atlas.faces[painted.face.reshape(-1)[texels]]
    weights = painted.weights.reshape(-1, 3)[texels]
    places = np.einsum("nk,nkc->nc", weights, atlas.vertices[corners])
    normals = np.einsum("nk,nkc->nc", weights, atlas.normals[corners])
    total, weight = np.zeros((len(texels), 3), np.float32), np.zeros(len(texels), np.float32)
    for camera in cameras:
        view = lens(camera)
        depth = see(project(atlas.vertices, view, np.float32(1)), atlas.faces, camera.height, camera.width).depth
        rgb, alpha = (part.cpu().numpy() for part in render(frame, camera))
        # The least of the neighbors, too: along an edge, a pixel shows what lies before it and what lies behind.
        nearest = cv2.erode(depth, np.ones((3, 3), np.uint8))
        _add(total, weight, places, normals, view, nearest, rgb, alpha, np.float32(HIDDEN * cell))
    known = weight > 0
    texture = np.zeros((size * size, 3), np.uint8)
    texture[texels[known]] = (total[known] / weight[known, None]).clip(0, 1) * 255 + 0.5
    return _filled(texture.reshape(size, size, 3), texels[known])


def _filled(texture: NDArray[np.uint8], known: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The texture with the color of the nearest known pixel wherever there is none; black without any."""
    if not len(known):
        return texture
    missing = np.ones(texture.shape[:2], np.uint8)
    missing.reshape(-1)[known] = 0
    _, labels = cv2.distanceTransformWithLabels(missing, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(int(labels.max()) + 1, np.int64)
    nearest[labels.reshape(-1)[known]] = known
    filled: NDArray[np.uint8] = texture.reshape(-1, 3)[nearest[labels]]
    return filled


@kernel
def _add(total, weight, places, normals, view, depth, rgb, alpha, hidden):  # type: ignore[no-untyped-def]
    """Adds what a camera sees of the texels at places (n, 3) to total (n, 3) and weight (n).

    A picture counts with the fourth power of the cosine between normal and view: it is sharp where it looks straight.
    """
    height, width = alpha.shape
    half, one, tiny = np.float32(0.5), np.float32(1), np.float32(1e-12)
    for n in range(len(places)):
        x, y, z = places[n, 0], places[n, 1], places[n, 2]
        ex, ey, ez = view[4, 0] - x, view[4, 1] - y, view[4, 2] - z
        a, b, c = normals[n, 0], normals[n, 1], normals[n, 2]
        cosine = a * ex + b * ey + c * ez
        if cosine <= 0:
            continue
        squared = cosine * cosine / max((ex * ex + ey * ey + ez * ez) * (a * a + b * b + c * c), tiny)
        away = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
        column = (view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]) * view[3, 0] / away + view[3, 1]
        row = (view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]) * view[3, 0] / away + view[3, 2]
        if not (0 <= row < height and 0 <= column < width) or away > depth[int(row), int(column)] + hidden:
            continue
        i, j = min(max(int(row - half), 0), height - 2), min(max(int(column - half), 0), width - 2)
        down, right = row - half - np.float32(i), column - half - np.float32(j)
        shares = ((one - down) * (one - right), (one - down) * right, down * (one - right), down * right)
        strength = squared * squared
        covered = np.float32(0)
        for k in range(4):
            covered += shares[k] * alpha[i + k // 2, j + k % 2]
        if covered < half:
            continue
        for channel in range(3):
            color = np.float32(0)
            for k in range(4):
                color += shares[k] * rgb[i + k // 2, j + k % 2, channel]
            total[n, channel] += strength * color / covered
        weight[n] += strength
