"""Gaussians on the surface of a procedural object, so that the surface which a mesh should have is known."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ss4d.stages.data.clip import lit
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import make_object
from ss4d.stages.inflation import facing
from ss4d.stages.meshing.draw import draw_mesh
from ss4d.stages.meshing.views import Box, cameras_around
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.ops.triangles import lens, project, see_triangles
from ss4d.stages.types import GaussianClip, MeshClip

Doubles = NDArray[np.float64]

WHITE = (1.0, 1.0, 1.0)
ALONG, THROUGH = 0.7, 0.15  # deviations along the surface and through it, in distances of neighbors
OPACITY = 0.98
HIDDEN = 0.002  # behind what a camera sees, from where on it does not see a point; world units
LOOKS, SIZE = 60, 512  # cameras that tell what can be seen, and pixels of their pictures


def true_gaussians(count: int, seed: int = 3, family: str = "quadruped") -> tuple[GaussianClip, Doubles]:
    """One frame of so many Gaussians, evenly on what can be seen of an object, in soft light; and their places."""
    return gaussians_on(make_object(family, seed, 1), count, seed)


def gaussians_on(mesh: AnimatedMesh, count: int, seed: int) -> tuple[GaussianClip, Doubles]:
    """The same of the first frame of any object."""
    draw = np.random.default_rng(seed)
    places, face, weights, normals, area = sampled(mesh.vertices[0], mesh.faces, 3 * count, draw)
    seen = _seen(mesh, places)
    rows = np.flatnonzero(seen)[:count]
    colors = np.einsum("nk,nkc->nc", weights[rows], mesh.colors[mesh.faces[face[rows]]])
    feats = torch.from_numpy(np.concatenate([colors, normals[rows], np.zeros((len(rows), 3))], axis=1)).float()
    apart = float((area * seen.mean() / len(rows)) ** 0.5)
    made = GaussianClip(
        means=torch.from_numpy(places[rows]).float(),
        scales=torch.tensor([ALONG, ALONG, THROUGH]).repeat(len(rows), 1) * apart,
        quats=facing(feats[:, 3:6]),
        colors=lit(feats, torch.eye(3)),
        opacities=torch.full((len(rows),), OPACITY),
        offsets=torch.tensor([0, len(rows)]),
    )
    return made, places[rows]


def sampled(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], count: int, draw: np.random.Generator
) -> tuple[Doubles, NDArray[np.int64], Doubles, Doubles, float]:
    """Points evenly on triangles (n, 3), their faces (n), weights of corners (n, 3), normals (n, 3), and the area."""
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    face = draw.choice(len(faces), count, p=areas / areas.sum())
    share = draw.random((count, 2))
    share = np.where(share.sum(1, keepdims=True) > 1, 1 - share, share)
    weights = np.concatenate([1 - share.sum(1, keepdims=True), share], axis=1)
    unit = normals[face] / areas[face, None]
    return np.einsum("nk,nkc->nc", weights, corners[face]), face, weights, unit, float(areas.sum()) / 2


def _seen(mesh: AnimatedMesh, places: Doubles) -> NDArray[np.bool_]:
    """Which places (n, 3) on the first frame can be seen from outside."""
    vertices, seen = mesh.vertices[0], np.zeros(len(places), bool)
    for camera in cameras_around(Box(tuple(vertices.min(0)), tuple(vertices.max(0))), LOOKS, SIZE):
        view = lens(camera)
        depth = see_triangles(project(vertices, view, np.float32(1)), mesh.faces, SIZE, SIZE).depth
        points = project(places.astype(np.float32), view, np.float32(1))
        column, row = points[:, :2].astype(int).clip(0, SIZE - 1).T
        seen |= 1 / points[:, 2] < depth[row, column] + HIDDEN
    return seen


def surface_errors(mesh: MeshClip, truth: Doubles, within: float) -> tuple[float, float]:
    """Chamfer distance (mean of both ways) and F-score (share within a distance) of a frame to points on the truth."""
    made = sampled(mesh.vertices.numpy(), mesh.faces.numpy(), len(truth), np.random.default_rng(1))[0]
    there, back = cKDTree(truth).query(made)[0], cKDTree(made).query(truth)[0]
    precision, recall = float((there < within).mean()), float((back < within).mean())
    return float(there.mean() + back.mean()) / 2, 2 * precision * recall / max(precision + recall, 1e-9)


def likeness(mesh: MeshClip, gaussians: GaussianClip, *, size: int = 256, views: int = 8) -> float:
    """PSNR in dB between pictures of a mesh and of Gaussians, over white, from all around, above and below."""
    errors = []
    for k in range(views):
        camera = orbit_camera(360 * (k + 0.5) / views, (15.0, -15.0)[k % 2], size=size)
        wanted = rasterize(gaussians, camera, background=WHITE)[0].clamp(0, 1)
        errors.append(float((draw_mesh(mesh, camera, background=WHITE)[0] - wanted).square().mean()))
    return float(-10 * np.log10(np.mean(errors)))
