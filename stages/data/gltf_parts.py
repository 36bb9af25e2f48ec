"""What a glTF file draws: one part for each primitive of each node, at rest and posed by nodes, skins and morphs.

Axes: t frame, v vertex, f face, j joint, k one of a vertex's joints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.data.gltf_animation import Tracks
from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.gltf_nodes import Worlds, drawn_nodes, instances
from ss4d.stages.data.gltf_references import AGAIN
from ss4d.stages.data.surface import Doubles, Faces
from ss4d.stages.errors import InputError

TRIANGLES, STRIP, FAN = 4, 5, 6
WITHOUT_SURFACE = (0, 1, 2, 3)  # points and lines
AT_ONCE = 200_000  # vertices times frames that are posed together

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Skin:
    """What a part's vertices hang on.

    Attributes:
        joints: (j) nodes.
        inverse: (j, 4, 4) from the mesh at rest to each joint.
        which: (v, k) joints of each vertex.
        weights: (v, k) that add up to 1.
    """

    joints: tuple[int, ...]
    inverse: Doubles
    which: Rows
    weights: Doubles


@dataclass(frozen=True, eq=False)
class Part:
    """A primitive as a node draws it, at rest.

    Attributes:
        path: of the file.
        name: for sentences.
        node: that draws it.
        primitive: of the parsed file.
        rows: (v,) which of the file's vertices these are.
        points: (v, 3).
        normals: (v, 3), or None where the file has none.
        targets: each morph target's change of points and of normals, (v, 3) or None.
        stored: (targets,) weights where none are animated.
        skin: what it hangs on, or None.
        before: (4, 4) what an instance adds before its node's matrix.
        faces: (f, 3).
    """

    path: Path
    name: str
    node: int
    primitive: Any
    rows: Rows
    points: Doubles
    normals: Doubles | None
    targets: tuple[tuple[Doubles | None, Doubles | None], ...]
    stored: Doubles
    skin: Skin | None
    before: Doubles
    faces: Faces

    def taken(self, rows: Rows, faces: Faces) -> "Part":
        """With these of its vertices alone, in this order, and other faces."""

        def of(values: Any) -> Any:
            return None if values is None else values[rows]

        skin = self.skin and replace(self.skin, which=self.skin.which[rows], weights=self.skin.weights[rows])
        return replace(
            self,
            rows=self.rows[rows],
            points=self.points[rows],
            normals=of(self.normals),
            targets=tuple((of(points), of(normals)) for points, normals in self.targets),
            skin=skin,
            faces=faces,
        )

    def flat_without_normals(self) -> "Part":
        """Itself if the file has normals; else, as the format wants it, with corners that no two faces share."""
        if self.normals is not None:
            return self
        corners = self.faces.ravel()
        return self.taken(corners, np.arange(len(corners)).reshape(-1, 3))

    def posed(
        self, tracks: Tracks, worlds: Worlds, num_frames: int, near: tuple[Doubles, float] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any] | None, float]:
        """Points and normals (t, v, 3) in the file's world; last, below 0 if it is mirrored there.

        Normals have any length.

        Args:
            tracks: what moves.
            worlds: where nodes are.
            num_frames: how many.
            near: a center and a unit in which points are told, so that 32 bits hold them; None for the file's, in 64.
        """
        center, unit = near or (np.zeros(3), 1.0)
        weights = self._weights(tracks, num_frames)
        points = np.empty((num_frames, len(self.points), 3), np.float32 if near else np.float64)
        normals = None if self.normals is None else np.empty_like(points)
        mirrored = 0.0
        step = max(1, AT_ONCE // max(len(self.points), 1))
        for start in range(0, num_frames, step):
            frames = slice(start, min(start + step, num_frames))
            at_rest = self._morphed(weights[frames])
            matrices = self._matrices(worlds, frames)
            linear = matrices[..., :3, :3]
            placed = np.einsum("tvij,tvj->tvi", linear, at_rest[0]) + matrices[..., :3, 3]
            points[frames] = (placed - center) / unit
            # What keeps normals upright on a surface that is stretched: the cofactors, which need no inverse.
            x, y, z = linear[..., 0, :], linear[..., 1, :], linear[..., 2, :]
            across = np.cross(y, z)
            sign = np.sign((x * across).sum(-1))
            mirrored += float(sign.sum())
            if normals is not None and at_rest[1] is not None:
                cofactors = np.stack((across, np.cross(z, x), np.cross(x, y)), -2)
                turned = np.einsum("tvij,tvj->tvi", cofactors, at_rest[1])
                normals[frames] = turned * np.where(sign < 0, -1, 1)[..., None]
        return points, normals, mirrored

    def _weights(self, tracks: Tracks, num_frames: int) -> Doubles:
        """Of the morph targets (t, targets)."""
        moved = tracks.get((self.node, "weights"))
        if moved is None or not self.targets:
            return np.broadcast_to(self.stored, (num_frames, len(self.stored)))
        if moved.shape[1] != len(self.targets):
            raise InputError(
                f"{self.path}: {self.name} has {len(self.targets)} morph targets, but an animation has "
                f"{moved.shape[1]} weights for them; {AGAIN}"
            )
        return moved

    def _morphed(self, weights: Doubles) -> tuple[Doubles, Doubles | None]:
        """Points and normals (t or 1, v, 3) under morph weights (t, targets)."""
        points, normals = self.points[None], None if self.normals is None else self.normals[None]
        for (moved, turned), weight in zip(self.targets, weights.T, strict=False):
            if weight.any():
                points = points if moved is None else points + weight[:, None, None] * moved
                if normals is not None and turned is not None:
                    normals = normals + weight[:, None, None] * turned
        return points, normals

    def _matrices(self, worlds: Worlds, frames: slice) -> Doubles:
        """Each vertex's matrix (t, v or 1, 4, 4); for a skin blended from its joints': the own node does not count."""
        if self.skin is None:
            return (worlds[self.node][frames] @ self.before)[:, None]
        skin = self.skin
        joints = np.stack([worlds[joint][frames] @ skin.inverse[j] for j, joint in enumerate(skin.joints)], axis=1)
        joints[:, np.setdiff1d(np.arange(len(skin.joints)), skin.which)] = 0  # those may hold no numbers
        blended = np.zeros((len(joints), len(skin.which), 4, 4))
        for k in range(skin.which.shape[1]):
            if skin.weights[:, k].any():
                blended += joints[:, skin.which[:, k]] * skin.weights[:, k, None, None]
        return blended


def parts(file: GltfFile) -> list[Part]:
    """Everything that the file's scene draws and that has a surface.

    Raises:
        InputError: if that is nothing, more than the limits allow, or damaged.
    """
    made: list[Part] = []
    left_out = 0
    room = file.limits.max_triangles
    for node in drawn_nodes(file):
        mesh = file.gltf.nodes[node].mesh
        if mesh is None:
            continue
        copies = instances(file, node)
        for number, primitive in enumerate(file.gltf.meshes[mesh].primitives):
            part = _part(file, node, primitive, f"mesh {mesh}, primitive {number}")
            if part is None or not len(part.faces):
                left_out += 1
                continue
            room -= len(part.faces) * len(copies)
            check_room(file, room)
            made += [replace(part, before=before) for before in copies]
    if not made:
        why = f"; the {left_out} that are there are points, lines or empty, which have no surface" if left_out else ""
        raise InputError(f"{file.path} shows no mesh in its scene{why}; give a file with at least one.")
    return made


def check_room(file: GltfFile, room: int) -> None:
    """Raises InputError if fewer than no triangles may still come."""
    if room < 0:
        raise InputError(
            f"{file.path} has more than {file.limits.max_triangles:,} triangles once those with a texture are split, "
            "the limit (max_triangles); give a simpler one."
        )


def _part(file: GltfFile, node: int, primitive: Any, name: str) -> Part | None:
    """The primitive with the vertices that its faces use, and its faces; None without a surface."""
    mode = TRIANGLES if primitive.mode is None else primitive.mode
    if mode in WITHOUT_SURFACE or getattr(primitive.attributes, "POSITION", None) is None:
        return None
    file.unpack(primitive, name)
    points = _vectors(file, primitive.attributes.POSITION, None, f"{name}, POSITION")
    count = len(points)
    normals = primitive.attributes.NORMAL
    _check_targets(file, primitive.targets or [], count, name)
    targets = tuple(
        tuple(
            None if held.get(key) is None else _vectors(file, held[key], count, f"{name}, morph target {i}, {key}")
            for key in ("POSITION", "NORMAL")
        )
        for i, held in enumerate(primitive.targets or [])
    )
    part = Part(
        path=file.path,
        name=name,
        node=node,
        primitive=primitive,
        rows=np.arange(count),
        points=points,
        normals=None if normals is None else _vectors(file, normals, count, f"{name}, NORMAL"),
        targets=targets,  # type: ignore[arg-type] # the inner tuples have two
        stored=file.stored_weights(node, len(targets)),
        skin=_skin(file, file.gltf.nodes[node].skin, primitive.attributes, count, name),
        before=np.eye(4),
        faces=np.empty((0, 3), np.int64),
    )
    rows, faces = np.unique(_faces(file, primitive, mode, count, name), return_inverse=True)
    part = part.taken(rows, faces.reshape(-1, 3))
    if not np.isfinite(part.points).all():
        raise InputError(f"{file.path}: {name} has positions that are not finite numbers; {AGAIN}")
    return part


def _check_targets(file: GltfFile, targets: Sequence[Mapping[str, Any]], count: int, name: str) -> None:
    """Raises InputError for morph targets of more numbers than an array may have: all of them are held at once."""
    numbers = sum(3 * count for held in targets for key in ("POSITION", "NORMAL") if held.get(key) is not None)
    if numbers > file.limits.max_numbers:
        raise InputError(
            f"{file.path}: {name} has {len(targets):,} morph targets of {numbers:,} numbers, over the limit of "
            f"{file.limits.max_numbers:,} (max_numbers)."
        )


def _faces(file: GltfFile, primitive: Any, mode: int, count: int, name: str) -> Faces:
    """Faces (f, 3) of any of the three modes that have some, without those that have a corner twice."""
    run = np.arange(count) if primitive.indices is None else np.ravel(file.array(primitive.indices)).astype(np.int64)
    if len(run) and (run.max() >= count or run.min() < 0):
        wrong = run.max() if run.max() >= count else run.min()
        raise InputError(f"{file.path} is damaged: a face names vertex {wrong} of {count} ({name}); export it again.")
    if mode == TRIANGLES:
        faces = run[: len(run) // 3 * 3].reshape(-1, 3)
    elif mode == STRIP:
        odd = np.arange(max(len(run) - 2, 0)) % 2
        start = np.arange(len(odd))
        faces = np.stack((run[start], run[start + 1 + odd], run[start + 2 - odd]), -1)
    elif mode == FAN:
        faces = np.stack((run[1:-1], run[2:], np.broadcast_to(run[:1], len(run[2:]))), -1)
    else:
        raise InputError(f"{file.path}: {name} draws with mode {mode}, which there is not; {AGAIN}")
    a, b, c = faces.T
    return np.asarray(faces[(a != b) & (b != c) & (c != a)])


def _vectors(file: GltfFile, index: int, count: int | None, name: str) -> Doubles:
    """An accessor's (v, 3) numbers, as many as there are vertices."""
    values = file.array(index).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or count not in (None, len(values)):
        raise InputError(f"{file.path}: {name} has {values.shape} numbers for {count or 'any'} vertices; {AGAIN}")
    return values


def _skin(file: GltfFile, index: int | None, attributes: Any, count: int, name: str) -> Skin | None:
    """The skin's joints and each vertex's weights; a vertex without any follows its first joint."""
    if index is None:
        return None
    held = file.gltf.skins[index]
    layers = list(_layers(file, attributes, count, name))
    if not layers:
        raise InputError(
            f"{file.path}: {name} hangs on skin {index} but has no joints and weights at its vertices; it is damaged: "
            "export it again."
        )
    which = np.concatenate([joints for joints, _ in layers], axis=1)
    weights = np.concatenate([weights for _, weights in layers], axis=1)
    weights = np.where(np.isfinite(weights), np.maximum(weights, 0), 0)
    lost = weights.sum(1) < 1e-6
    weights[lost, 0] = 1
    wrong = which[(weights > 0) & ((which < 0) | (which >= len(held.joints)))]
    if len(wrong):
        raise InputError(f"{file.path}: {name} hangs on joint {wrong[0]} of {len(held.joints)}; {AGAIN}")
    weights = weights / weights.sum(1, keepdims=True)
    inverse = np.tile(np.eye(4), (len(held.joints), 1, 1))
    if held.inverseBindMatrices is not None:
        stored = file.array(held.inverseBindMatrices).astype(np.float64)
        if stored.ndim != 2 or stored.shape[1] != 16 or len(stored) < len(held.joints):
            raise InputError(f"{file.path}: skin {index} has matrices of {stored.shape} for its joints; {AGAIN}")
        inverse = stored[: len(held.joints)].reshape(-1, 4, 4).swapaxes(1, 2)
    first = np.take_along_axis(which, np.argmax(weights > 0, 1)[:, None], 1)
    which = np.where(weights > 0, which, first)  # what is not used may name joints that there are not
    return Skin(tuple(held.joints), inverse, which, weights)


def _layers(file: GltfFile, attributes: Any, count: int, name: str) -> Iterator[tuple[Rows, Doubles]]:
    """Joints and weights (v, 4) of each set that there is."""
    for layer in range(8):
        names = [getattr(attributes, f"{kind}_{layer}", None) for kind in ("JOINTS", "WEIGHTS")]
        if names[0] is None or names[1] is None:
            return
        joints, weights = file.array(names[0]), file.array(names[1]).astype(np.float64)
        if joints.shape != (count, 4) or weights.shape != (count, 4):
            raise InputError(f"{file.path}: {name} has joints {joints.shape} and weights {weights.shape}; {AGAIN}")
        yield np.nan_to_num(joints).astype(np.int64), weights
