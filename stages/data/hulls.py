"""Finds surfaces that the outside sees only from behind: hulls that draw outlines, and sheets with their back out.

Axes: v vertex, f face; images are (row, column).
"""

from dataclasses import replace
from functools import partial

import numpy as np

from ss4d.stages.data.mesh import AnimatedMesh, Floats, Integers, face_normal
from ss4d.stages.data.surface import Mask
from ss4d.stages.ops.compiled import kernel, spread
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.triangles import cover, lens, project
from ss4d.stages.types import Camera

SIZE = 256  # of the pictures in which that is looked up
YAWS = {-85.0: 1, -45.0: 6, 0.0: 8, 45.0: 6, 85.0: 1}  # how many cameras look at the object, by their pitch
NEAR = 0.01  # how far behind what is seen a face still counts as seen, in units of the grid
LEAST_FACING = 0.5  # cosine to the camera; what is seen more aslant than that may be the rim of a hull
LEAST_AREA = np.float32(1e-5)  # of a face, to its edges' squares; anything less is a rounding


def outside(mesh: AnimatedMesh) -> AnimatedMesh:
    """The mesh without one-sided faces that the outside sees only from behind, and two-sided ones of that kind turned.

    A one-sided face is not drawn to who looks at its back. Where a body stands in a somewhat larger hull with its back
    out, as outlines are drawn, the body is what is seen. Meshes that do not tell sides are as they were.
    """
    if mesh.one_sided is None or not len(mesh.faces):
        return mesh
    cameras = [orbit_camera(360 * k / n, pitch, size=SIZE) for pitch, n in YAWS.items() for k in range(n)]
    middle = mesh.num_frames // 2
    if not np.any(spread(partial(_any_back, mesh, middle, camera) for camera in cameras)):
        return mesh  # as nearly all are, so the rest is spared
    frames = sorted({0, middle, mesh.num_frames - 1})
    found = spread(partial(_seen, mesh, t, camera) for t in frames for camera in cameras)
    front, back, area = (np.any([seen[k] for seen in found], axis=0) for k in range(3))
    wrong = back & ~front
    if not wrong.any():
        return mesh
    wrong |= ~area  # such as at a hull's poles
    sides = mesh.one_sided[mesh.faces[:, 0]]
    faces, turned = mesh.faces[~wrong], mesh.faces[wrong & ~sides]
    if not len(turned):
        return replace(mesh, faces=faces)
    normals = mesh.normals()
    return replace(
        mesh,
        vertices=np.concatenate((mesh.vertices, mesh.vertices), axis=1),
        faces=np.concatenate((faces, turned[:, ::-1] + mesh.vertices.shape[1])),
        colors=np.tile(mesh.colors, (2, 1)),
        stored_normals=np.concatenate((normals, -normals), axis=1),
        opacity=None if mesh.opacity is None else np.tile(mesh.opacity, 2),
        one_sided=np.tile(mesh.one_sided, 2),
    )


def _any_back(mesh: AnimatedMesh, t: int, camera: Camera) -> bool:
    """Whether a camera would see the back of any face if nothing were one-sided."""
    view = lens(camera)
    points = project(mesh.vertices[t], view, np.float32(1))
    facing = _cosines(mesh.vertices[t], mesh.faces, view[4, :3])
    return bool((_reached(points, mesh.faces, _depth(points, mesh.faces)) & (facing < -LEAST_FACING)).any())


def _seen(mesh: AnimatedMesh, t: int, camera: Camera) -> tuple[Mask, Mask, Mask]:
    """Of which faces (f,) a camera sees the front, of which it would see the back if nothing were one-sided, and which
    have an area.
    """
    assert mesh.one_sided is not None
    view = lens(camera)
    vertices, eye = mesh.vertices[t], view[4, :3]
    points = project(vertices, view, np.float32(1))
    facing = _cosines(vertices, mesh.faces, eye)
    drawn = (facing > 0) | ~mesh.one_sided[mesh.faces[:, 0]]
    depth, all_depth = (_depth(points, faces) for faces in (mesh.faces[drawn], mesh.faces))
    return (
        _reached(points, mesh.faces, depth) & (facing > LEAST_FACING),
        _reached(points, mesh.faces, all_depth) & (facing < -LEAST_FACING),
        facing != 0,
    )


def _depth(points: Floats, faces: Integers) -> Floats:
    """The depth (h, w) that each pixel sees; infinite without any."""
    nearest = np.empty((SIZE, SIZE), np.float32)
    cover(points, faces, nearest, np.empty((SIZE, SIZE), np.int32), np.full((SIZE, SIZE), np.float32(np.inf)))
    with np.errstate(divide="ignore"):
        return np.asarray(1 / nearest, np.float32)


@kernel
def _cosines(vertices, faces, eye):  # type: ignore[no-untyped-def]
    """The cosine (f,) between each face's normal and the way from it to `eye` (3); 0 for a face without an area."""
    made = np.zeros(len(faces), np.float32)
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        nx, ny, nz = face_normal(vertices, faces[f])
        edges, away, along = np.float32(0), np.float32(0), np.float32(0)
        for k in range(3):
            toward = eye[k] - (a[k] + b[k] + c[k]) / np.float32(3)
            edges += (b[k] - a[k]) ** 2 + (c[k] - a[k]) ** 2
            away += toward**2
            along += toward * (nx if k == 0 else ny if k == 1 else nz)
        area = nx * nx + ny * ny + nz * nz
        if area > (LEAST_AREA * edges) ** 2:
            made[f] = along / np.sqrt(area * away)
    return made


@kernel
def _reached(points, faces, depth):  # type: ignore[no-untyped-def]
    """Whether the middle of each face (f,) is no farther than what is seen where it lies."""
    made = np.zeros(len(faces), np.bool_)
    for f in range(len(faces)):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        inverse = (a[2] + b[2] + c[2]) / np.float32(3)
        if min(a[2], b[2], c[2]) <= 0:
            continue
        column, row = int((a[0] + b[0] + c[0]) / np.float32(3)), int((a[1] + b[1] + c[1]) / np.float32(3))
        if 0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]:
            made[f] = np.float32(1) / inverse <= depth[row, column] + np.float32(NEAR)
    return made
