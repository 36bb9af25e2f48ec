"""Pictures of textured meshes, by the rasterizer of triangles."""

import numpy as np
import torch
from torch import Tensor

from ss4d.stages.ops.rasterize import BLACK, Color
from ss4d.stages.ops.triangles import SeeTriangles, lens, project, see_triangles
from ss4d.stages.types import Camera, MeshClip

SAMPLES = 2  # of a pixel, along each side


def draw_mesh(
    mesh: MeshClip, camera: Camera, *, background: Color = BLACK, see: SeeTriangles = see_triangles
) -> tuple[Tensor, Tensor]:
    """Color and coverage of one frame: RGB (height, width, 3), 0 to 1, and alpha (height, width), float32.

    A pixel is the mean of 2 x 2 samples; both sides of a face are seen.

    Args:
        mesh: a clip of one frame.
        camera: where to look from.
        background: RGB behind the mesh.
        see: draws triangles.
    """
    assert mesh.num_frames == 1, "one frame at a time"
    height, width = SAMPLES * camera.height, SAMPLES * camera.width
    faces = mesh.faces.numpy()
    points = project(mesh.vertices.numpy(), lens(camera), np.float32(SAMPLES))
    seen = see(points, faces, height, width)
    hit = seen.face >= 0
    samples = np.empty((height, width, 3), np.float32)
    samples[:] = background
    corners = mesh.uv.numpy()[faces[seen.face[hit]]]
    samples[hit] = _looked_up(mesh.texture[0].numpy(), np.einsum("nk,nkc->nc", seen.weights[hit], corners))
    shape = (camera.height, SAMPLES, camera.width, SAMPLES)
    rgb = samples.reshape(*shape, 3).mean(axis=(1, 3))
    return torch.from_numpy(rgb), torch.from_numpy(hit.reshape(shape).mean(axis=(1, 3), dtype=np.float32))


def _looked_up(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colors (n, 3) of a texture (s, s, 3) at places (n, 2), 0 to 1, between its pixels' centers."""
    size = len(texture)
    place = (uv * size - 0.5).clip(0, size - 1)
    first = np.minimum(place.astype(np.int64), size - 2)
    (right, down), (j, i) = (place - first).T[..., None], first.T
    upper = texture[i, j] * (1 - right) + texture[i, j + 1] * right
    lower = texture[i + 1, j] * (1 - right) + texture[i + 1, j + 1] * right
    colors: np.ndarray = (upper * (1 - down) + lower * down) / 255
    return colors.astype(np.float32)
