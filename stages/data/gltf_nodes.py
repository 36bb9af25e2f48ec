"""Where the nodes of a glTF file are, frame by frame.

Axes: t frame; matrices act on columns.
"""

from typing import Any

import numpy as np

from ss4d.stages.data.gltf_animation import DEFAULTS, Tracks
from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.surface import Doubles
from ss4d.stages.errors import InputError

Worlds = dict[int, Doubles]  # node -> (t, 4, 4), to the file's world


def drawn_nodes(file: GltfFile) -> list[int]:
    """The nodes of the file's scene that are to be seen, in order.

    Raises:
        InputError: for a node with two parents, or one that is in itself.
    """
    gltf = file.gltf
    waiting = list(gltf.scenes[gltf.scene or 0].nodes or []) if gltf.scenes else _roots(file, range(len(gltf.nodes)))
    found: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node in found:
            raise InputError(f"{file.path}: node {node} has two parents; the file is damaged: export it again.")
        if (gltf.nodes[node].extensions or {}).get("KHR_node_visibility", {}).get("visible", True):
            found.add(node)
            waiting += gltf.nodes[node].children or []
    return sorted(found)


def world_matrices(file: GltfFile, tracks: Tracks, num_frames: int) -> Worlds:
    """Of all nodes, also those outside the scene, since joints may lie there."""
    worlds: Worlds = {}
    waiting = [(node, np.eye(4)[None]) for node in _roots(file, range(len(file.gltf.nodes)))]
    while waiting:
        node, parent = waiting.pop()
        if node not in worlds:
            local = _local_matrix(file.gltf.nodes[node], node, tracks)
            worlds[node] = np.broadcast_to(parent @ local, (num_frames, 4, 4))
            waiting += [(child, worlds[node]) for child in file.gltf.nodes[node].children or []]
    return worlds


def instances(file: GltfFile, node: int) -> list[Doubles]:
    """Matrices (4, 4), before the node's own, of each copy that it draws of its mesh: one, or those of instancing."""
    held = (file.gltf.nodes[node].extensions or {}).get("EXT_mesh_gpu_instancing")
    if held is None:
        return [np.eye(4)]
    arrays = {path: file.array(index) for path, index in held.get("attributes", {}).items() if path.lower() in DEFAULTS}
    count = max((len(array) for array in arrays.values()), default=0)
    move, turn, scale = (
        arrays.get(path.upper(), np.tile(default, (count, 1))).astype(np.float64) for path, default in DEFAULTS.items()
    )
    return list(composed(move, turn, scale)) if count else []


def composed(move: Doubles, turn: Doubles, scale: Doubles) -> Doubles:
    """Matrices (t, 4, 4) of translations (t, 3), quaternions (t, 4) and scales (t, 3); any of them once for all."""
    rotated = _rotations(turn) * scale[:, None, :]
    matrix = np.tile(np.eye(4), (max(len(move), len(rotated)), 1, 1))
    matrix[:, :3, :3], matrix[:, :3, 3] = rotated, move
    return matrix


def _roots(file: GltfFile, nodes: range) -> list[int]:
    children = {child for node in file.gltf.nodes for child in node.children or []}
    return [node for node in nodes if node not in children]


def _local_matrix(node: Any, index: int, tracks: Tracks) -> Doubles:
    """A node's matrix (t or 1, 4, 4): as stored, or translation x rotation x scale."""
    stored: dict[str, Any] = {path: getattr(node, path) or default for path, default in DEFAULTS.items()}
    if node.matrix is not None:
        matrix = np.asarray(node.matrix, np.float64).reshape(4, 4).T
        if not any((index, path) in tracks for path in DEFAULTS):
            return matrix[None]
        stored = _taken_apart(matrix)
    move, turn, scale = (tracks.get((index, path), np.asarray([value], np.float64)) for path, value in stored.items())
    return composed(move, turn, scale)


def _taken_apart(matrix: Doubles) -> dict[str, Any]:
    """Translation, rotation and scale of a matrix (4, 4) without shear."""
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    scale[0] *= np.sign(np.linalg.det(matrix[:3, :3])) or 1
    (a, b, c), (d, e, f), (g, h, i) = matrix[:3, :3] / np.where(scale == 0, 1, scale)
    # A rotation's quaternion is the eigenvector of the largest eigenvalue of this matrix (Bar-Itzhack 2000).
    rows = [[a - e - i, d + b, g + c, h - f], [d + b, e - a - i, h + f, c - g], [g + c, h + f, i - a - e, d - b]]
    rows.append([h - f, c - g, d - b, a + e + i])
    return {
        "translation": matrix[:3, 3],
        "rotation": np.linalg.eigh(np.array(rows) / 3)[1][:, -1],
        "scale": scale,
    }


def _rotations(turn: Doubles) -> Doubles:
    """Rotation matrices (t, 3, 3) of quaternions (t, 4) in the file's order (x, y, z, w)."""
    x, y, z, w = (turn / np.maximum(np.linalg.norm(turn, axis=-1, keepdims=True), 1e-12)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array([list(row) for row in rows]), -1, 0)
