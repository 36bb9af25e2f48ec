"""Find the cells of a grid over [-0.5, 0.5]^3 that a surface passes through, and what it is like in each.

Axes: coords are (b, t, x, y, z) with b = 0, sorted; cell i covers [i, i + 1] / R - 0.5.
"""

from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.data.mesh import AnimatedMesh, Floats, Integers
from ss4d.stages.ops.compiled import kernel, spread

NUM_FEATURES = 9
LEAST_AREA = 1e-7  # of a cell's side, squared: a cell with less surface has none
SPACING = 0.4  # samples of a triangle are at most this far apart, in cells


def surface_voxels(mesh: AnimatedMesh, resolution: int) -> tuple[Integers, Floats]:
    """The surface on a grid, frame by frame, found by sampling every triangle at least every 0.4 cells.

    Args:
        mesh: the object, within [-0.5, 0.5]^3.
        resolution: R, cells along each axis.

    Returns:
        coords (N, 5) int32 (0, t, x, y, z), sorted; feats (N, 9) float32: mean color (3, 0 to 1), mean normal (3, unit
        length, or zero where the surface's sides cancel) and the surface's mean offset from the cell's center (3, in
        cells, -0.5 to 0.5), all weighted by area.
    """
    normals = mesh.normals()
    frames: list[tuple[Integers, Floats]] = spread(
        partial(_voxelize, vertices, mesh.faces, mesh.colors, normal, resolution)
        for vertices, normal in zip(mesh.vertices, normals, strict=True)
    )
    sizes = [len(cells) for cells, _ in frames]
    coords = np.zeros((sum(sizes), 5), np.int32)
    coords[:, 1] = np.repeat(np.arange(mesh.num_frames, dtype=np.int32), sizes)
    coords[:, 2:] = np.concatenate([cells for cells, _ in frames])
    return coords, np.concatenate([feats for _, feats in frames])


def visible(coords: Integers, resolution: int, blocking: Integers | None = None) -> NDArray[np.bool_]:
    """Which cells (N,) of `surface_voxels` can be seen from outside, frame by frame.

    A cell can be seen if one of its 26 neighbors is empty and joined, through empty cells, to the outside. The others
    hold only what parts hide in each other: no picture shows it, and a network could do no more than guess it. The
    bottom of a crease narrower than a cell counts as hidden, too.

    Args:
        coords: of all cells.
        resolution: cells along each axis.
        blocking: those of them (m, 5) that nothing is seen through, likewise sorted; None for all.
    """
    blocking = coords if blocking is None else blocking
    times = np.arange(coords[-1, 1] + 2) if len(coords) else np.zeros(1, np.int64)
    of_all, of_blocking = (pairwise(np.searchsorted(held[:, 1], times).tolist()) for held in (coords, blocking))
    frames = spread(
        partial(_look, coords[a:b, 2:], blocking[c:d, 2:], resolution)
        for (a, b), (c, d) in zip(of_all, of_blocking, strict=True)
    )
    return np.concatenate([np.empty(0, np.bool_), *frames])


@kernel
def _cell(x, resolution):  # type: ignore[no-untyped-def]
    """The cell along one axis that holds a coordinate; the outer border belongs to the last cell."""
    return min(max(int(np.floor((x + np.float32(0.5)) * resolution)), 0), resolution - 1)


@kernel
def _pieces(vertices, face, resolution):  # type: ignore[no-untyped-def]
    """How many parts each edge of a face is cut into, so that samples lie closely enough."""
    longest = np.float32(0)
    for corner in range(3):
        a, b = face[corner], face[(corner + 1) % 3]
        length = np.float32(0)
        for k in range(3):
            length += (vertices[a, k] - vertices[b, k]) ** 2
        longest = max(longest, length)
    return max(int(np.ceil(np.sqrt(longest) * resolution / SPACING)), 1)


@kernel
def _sample(n, i, j, upper):  # type: ignore[no-untyped-def]
    """Weights of a face's corners at the center of one of the n^2 small triangles it is cut into."""
    shift = np.float32(2 / 3 if upper else 1 / 3)
    v, w = (np.float32(i) + shift) / np.float32(n), (np.float32(j) + shift) / np.float32(n)
    return np.float32(1) - v - w, v, w


@kernel
def _voxelize(vertices, faces, colors, normals, resolution):  # type: ignore[no-untyped-def]
    """Cells (n, 3) int32, sorted, and feats (n, 9) float32 of one frame."""
    slot = np.full((resolution, resolution, resolution), -1, np.int32)
    pieces = np.empty(len(faces), np.int32)
    for f in range(len(faces)):
        n = pieces[f] = _pieces(vertices, faces[f], resolution)
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        for i in range(n):
            for j in range(n - i):
                for upper in range(2 if i + j < n - 1 else 1):
                    u, v, w = _sample(n, i, j, upper)
                    x = _cell(u * vertices[a, 0] + v * vertices[b, 0] + w * vertices[c, 0], resolution)
                    y = _cell(u * vertices[a, 1] + v * vertices[b, 1] + w * vertices[c, 1], resolution)
                    z = _cell(u * vertices[a, 2] + v * vertices[b, 2] + w * vertices[c, 2], resolution)
                    slot[x, y, z] = 0
    count = 0
    cells = np.empty((np.count_nonzero(slot == 0), 3), np.int32)
    for x in range(resolution):
        for y in range(resolution):
            for z in range(resolution):
                if slot[x, y, z] == 0:
                    slot[x, y, z] = count
                    cells[count] = x, y, z
                    count += 1
    sums = np.zeros((count, NUM_FEATURES + 2), np.float32)
    for f in range(len(faces)):
        _add_face(vertices, faces[f], colors, normals, pieces[f], slot, sums)
    # What is shrunk to a point, as some files hide things, is nothing, unless there is nothing else.
    real = sums[:, 10] > LEAST_AREA
    if np.any(real):
        cells, sums = cells[real], sums[real]
    for n in range(len(sums)):
        length = np.sqrt(sums[n, 3] ** 2 + sums[n, 4] ** 2 + sums[n, 5] ** 2)
        for k in range(3):
            sums[n, k] /= sums[n, 9]
            sums[n, 3 + k] /= max(length, np.float32(1e-3) * sums[n, 9])
            sums[n, 6 + k] /= sums[n, 9]
    return cells, sums[:, :NUM_FEATURES].copy()


@kernel
def _add_face(vertices, face, colors, normals, n, slot, sums):  # type: ignore[no-untyped-def]
    """Adds a face's samples to sums (cells, 11): the features times their weight, then the weight and the area."""
    a, b, c = face[0], face[1], face[2]
    resolution = slot.shape[0]
    ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
    vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
    area = np.sqrt((uy * vz - uz * vy) ** 2 + (uz * vx - ux * vz) ** 2 + (ux * vy - uy * vx) ** 2) / 2
    # Counted in cells, and never nothing: a face without area must not leave a cell without weight.
    weight = (area * np.float32(resolution**2) + np.float32(1e-6)) / np.float32(n * n)
    for i in range(n):
        for j in range(n - i):
            for upper in range(2 if i + j < n - 1 else 1):
                u, v, w = _sample(n, i, j, upper)
                x = u * vertices[a, 0] + v * vertices[b, 0] + w * vertices[c, 0]
                y = u * vertices[a, 1] + v * vertices[b, 1] + w * vertices[c, 1]
                z = u * vertices[a, 2] + v * vertices[b, 2] + w * vertices[c, 2]
                cx, cy, cz = _cell(x, resolution), _cell(y, resolution), _cell(z, resolution)
                row = sums[slot[cx, cy, cz]]
                for k in range(3):
                    row[k] += weight * (u * colors[a, k] + v * colors[b, k] + w * colors[c, k])
                    row[3 + k] += weight * (u * normals[a, k] + v * normals[b, k] + w * normals[c, k])
                half = np.float32(0.5)
                row[6] += weight * ((x + half) * np.float32(resolution) - np.float32(cx) - half)
                row[7] += weight * ((y + half) * np.float32(resolution) - np.float32(cy) - half)
                row[8] += weight * ((z + half) * np.float32(resolution) - np.float32(cz) - half)
                row[9] += weight
                row[10] += area * np.float32(resolution**2) / np.float32(n * n)


@kernel
def _look(cells, blocking, resolution):  # type: ignore[no-untyped-def]
    """Which of the cells (n, 3) of a frame can be seen, by flooding all but `blocking` (m, 3) from a border around."""
    seen = np.empty(len(cells), np.bool_)
    empty, full, outside = 0, 1, 2
    size = resolution + 2
    state = np.full((size, size, size), empty, np.uint8)
    for n in range(len(blocking)):
        state[blocking[n, 0] + 1, blocking[n, 1] + 1, blocking[n, 2] + 1] = full
    waiting = np.empty((size**3, 3), np.int16)
    waiting[0] = 0
    state[0, 0, 0] = outside
    count = 1
    while count > 0:
        count -= 1
        place = (int(waiting[count, 0]), int(waiting[count, 1]), int(waiting[count, 2]))
        for axis in range(3):
            for step in (-1, 1):
                x = place[0] + (step if axis == 0 else 0)
                y = place[1] + (step if axis == 1 else 0)
                z = place[2] + (step if axis == 2 else 0)
                if min(x, y, z) >= 0 and max(x, y, z) < size and state[x, y, z] == empty:
                    state[x, y, z] = outside
                    waiting[count, 0], waiting[count, 1], waiting[count, 2] = x, y, z
                    count += 1
    for n in range(len(cells)):
        x, y, z = cells[n, 0], cells[n, 1], cells[n, 2]
        seen[n] = np.any(state[x : x + 3, y : y + 3, z : z + 3] == outside)
    return seen
