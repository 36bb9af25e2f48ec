"""Turn animated glTF and GLB assets into `AnimatedMesh`: node animation, skins, morph targets, colors and textures.

Axes: t frame, v vertex, f face. A file is y up with its front at +z; the world is z up with its front at -y.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.data.gltf_file import USUAL_LIMITS, AssetLimits, GltfFile
from ss4d.stages.data.mesh import AnimatedMesh, Doubles, fitted
from ss4d.stages.errors import InputError

TRIANGLES = 4
TEXTURE_EDGE = 1 / 64  # textured faces are split until no edge is longer, as a share of the object's size
MAX_SPLITS = 7
TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y up to z up

Times = Doubles
Faces = NDArray[np.int64]
Tracks = dict[tuple[int, str], Doubles]  # (node, path) -> values (t, ...)


def load_animated(
    path: Path,
    num_frames: int,
    fps: float,
    *,
    animation: int = 0,
    start: float = 0.0,
    limits: AssetLimits = USUAL_LIMITS,
) -> AnimatedMesh:
    """The file's scene with one of its animations, sampled at `fps` and repeated when it is shorter than the clip.

    Colors are the base color alone: factor, vertex color and texture, which is looked up at the vertices after faces
    are split finely. Transparency is not kept. A file without an animation stands still.

    Args:
        path: a .gltf or .glb file.
        num_frames: length of the clip.
        fps: frames a second of the animation's own time.
        animation: its number in the file.
        start: seconds into the animation at which the clip begins.
        limits: what the file may cost.

    Raises:
        InputError: the file cannot be used; the sentence says why (see `GltfFile`).
    """
    file = GltfFile(path, limits)
    try:
        parts = _parts(file, start + np.arange(num_frames) / fps, animation)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: it refers to something it does not hold ({error}).") from error
    first = np.cumsum([0] + [vertices.shape[1] for vertices, _, _ in parts])
    return AnimatedMesh(
        vertices=fitted(np.concatenate([vertices for vertices, _, _ in parts], axis=1) @ TO_WORLD.T),
        faces=np.concatenate([faces + start for (_, faces, _), start in zip(parts, first, strict=False)]).astype(
            np.int32
        ),
        colors=np.concatenate([colors for _, _, colors in parts]).astype(np.float32),
    )


def _parts(file: GltfFile, times: Times, chosen: int) -> list[tuple[Doubles, Faces, Doubles]]:
    """Every drawn primitive's vertices (t, v, 3) in the file's world, faces and sRGB colors."""
    gltf, num_frames = file.gltf, len(times)
    tracks = _tracks(file, times, chosen)
    worlds = _world_matrices(file, tracks, num_frames)
    posed = [
        (*_posed(file, node, primitive, tracks, worlds, num_frames), primitive)
        for node in sorted(worlds)
        if gltf.nodes[node].mesh is not None
        for primitive in gltf.meshes[gltf.nodes[node].mesh].primitives
    ]
    if not posed:
        raise InputError(f"{file.path} shows no mesh in its scene; give a file with at least one.")
    points = np.concatenate([vertices.reshape(-1, 3) for vertices, _, _ in posed])
    if not np.isfinite(points).all():
        raise InputError(f"{file.path} has positions that are not finite numbers.")
    longest = max(float(np.ptp(points, axis=0).max()), 1e-12) * TEXTURE_EDGE
    parts, room = [], file.limits.max_triangles
    for vertices, faces, primitive in posed:
        part = _colored(file, vertices, faces, primitive, longest, room)
        room -= len(part[1])
        _check_room(file, room)
        parts.append(part)
    return parts


def _check_room(file: GltfFile, room: int) -> None:
    """Raises InputError if fewer than no triangles may still come."""
    if room < 0:
        raise InputError(
            f"{file.path} has more than {file.limits.max_triangles:,} triangles once those with a texture are split, "
            "the limit (max_triangles); give a simpler one."
        )


def _tracks(file: GltfFile, times: Times, chosen: int) -> Tracks:
    """Every property that the chosen animation moves, at the given times in seconds."""
    tracks: Tracks = {}
    for animation in file.gltf.animations[chosen : chosen + 1]:
        samplers = [
            (file.array(s.input), file.array(s.output), s.interpolation or "LINEAR") for s in animation.samplers
        ]
        length = max((keys[-1] for keys, _, _ in samplers), default=0.0)
        looped = times % length if length > 0 else times * 0
        for channel in animation.channels:
            keys, values, interpolation = samplers[channel.sampler]
            if channel.target.node is not None:
                tracks[channel.target.node, channel.target.path] = _sampled(
                    keys, values, interpolation, looped, turning=channel.target.path == "rotation"
                )
    return tracks


def _sampled(keys: Times, values: Doubles, interpolation: str, times: Times, *, turning: bool) -> Doubles:
    """Values (t, ...) between the keyframes (k,); clamped outside them."""
    values = values.reshape(len(keys), -1)  # morph weights are stored as one long row, splines as three values a key
    if interpolation == "CUBICSPLINE":
        slopes_in, values, slopes_out = np.split(values, 3, axis=1)
    right = np.clip(np.searchsorted(keys, times, side="right"), 1, max(len(keys) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(keys) - 1)
    gap = np.maximum(keys[right] - keys[left], 1e-12)
    share = np.clip((times - keys[left]) / gap, 0, 1)[:, None]
    if interpolation == "STEP":
        return np.where(share < 1, values[left], values[right])
    if interpolation == "CUBICSPLINE":
        s2, s3, gap = share**2, share**3, gap[:, None]
        result = (2 * s3 - 3 * s2 + 1) * values[left] + gap * (s3 - 2 * s2 + share) * slopes_out[left]
        result += (3 * s2 - 2 * s3) * values[right] + gap * (s3 - s2) * slopes_in[right]
        return result
    return _slerp(values[left], values[right], share) if turning else values[left] * (1 - share) + values[right] * share


def _slerp(first: Doubles, second: Doubles, share: Doubles) -> Doubles:
    """Rotations (t, 4) between two by the shorter way."""
    dot = (first * second).sum(-1, keepdims=True)
    second, dot = np.where(dot < 0, -second, second), np.abs(dot)
    angle = np.arccos(np.clip(dot, 0, 1))
    sine = np.maximum(np.sin(angle), 1e-12)
    spherical = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / sine
    return np.where(angle < 1e-6, first * (1 - share) + second * share, spherical)


def _world_matrices(file: GltfFile, tracks: Tracks, num_frames: int) -> dict[int, Doubles]:
    """World matrices (t, 4, 4) of the nodes in the scene, parents first."""
    gltf = file.gltf
    if gltf.scenes:
        waiting = [(node, np.eye(4)[None]) for node in gltf.scenes[gltf.scene or 0].nodes or []]
    else:
        children = {child for node in gltf.nodes for child in node.children or []}
        waiting = [(node, np.eye(4)[None]) for node in range(len(gltf.nodes)) if node not in children]
    worlds: dict[int, Doubles] = {}
    while waiting:
        node, parent = waiting.pop()
        if node in worlds:
            raise InputError(f"{file.path}: node {node} has two parents; the file is damaged.")
        local = _local_matrix(gltf.nodes[node], node, tracks)
        worlds[node] = np.broadcast_to(parent @ local, (num_frames, 4, 4))
        waiting += [(child, worlds[node]) for child in gltf.nodes[node].children or []]
    return worlds


def _local_matrix(node: Any, index: int, tracks: Tracks) -> Doubles:
    """A node's matrix (t or 1, 4, 4): as stored, or translation x rotation x scale."""
    animated = any((index, path) in tracks for path in ("translation", "rotation", "scale"))
    if node.matrix is not None and not animated:
        return np.asarray(node.matrix, np.float64).reshape(1, 4, 4).swapaxes(1, 2)
    move, turn, scale = (
        tracks.get((index, path), np.asarray([value if value is not None else default], np.float64))
        for path, value, default in (
            ("translation", node.translation, (0, 0, 0)),
            ("rotation", node.rotation, (0, 0, 0, 1)),
            ("scale", node.scale, (1, 1, 1)),
        )
    )
    rotated = _matrices(turn) * scale[:, None, :]
    matrix = np.tile(np.eye(4), (max(len(move), len(rotated)), 1, 1))
    matrix[:, :3, :3], matrix[:, :3, 3] = rotated, move
    return matrix


def _matrices(turn: Doubles) -> Doubles:
    """Rotation matrices (t, 3, 3) of quaternions (t, 4) in the file's order (x, y, z, w)."""
    x, y, z, w = (turn / np.maximum(np.linalg.norm(turn, axis=-1, keepdims=True), 1e-12)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array([list(row) for row in rows]), -1, 0)


def _posed(
    file: GltfFile, node_index: int, primitive: Any, tracks: Tracks, worlds: dict[int, Doubles], num_frames: int
) -> tuple[Doubles, Faces]:
    """A primitive's vertices (t, v, 3) in the file's world, and its faces."""
    if primitive.mode not in (None, TRIANGLES):
        raise InputError(f"{file.path} draws with mode {primitive.mode}; only triangles (mode 4) are supported.")
    node, attributes = file.gltf.nodes[node_index], primitive.attributes
    points = file.array(attributes.POSITION)[None].astype(np.float64)
    points = np.broadcast_to(points, (num_frames, *points.shape[1:]))
    if primitive.targets:
        stored = _stored_weights(file, node_index, len(primitive.targets))
        weights = np.broadcast_to(tracks.get((node_index, "weights"), stored), (num_frames, len(primitive.targets)))
        for target, weight in zip(primitive.targets, weights.T, strict=True):
            if target.get("POSITION") is not None:
                points = points + weight[:, None, None] * file.array(target["POSITION"])
    matrices = worlds[node_index][:, None]
    if node.skin is not None:
        matrices = _skin_matrices(file, file.gltf.skins[node.skin], attributes, worlds)
    points = (
        np.einsum("tvij,tvj->tvi", np.broadcast_to(matrices[..., :3, :3], (*points.shape, 3)), points)
        + matrices[..., :3, 3]
    )
    count = points.shape[1]
    faces = (np.arange(count) if primitive.indices is None else file.array(primitive.indices)).astype(np.int64)
    faces = faces[: len(faces) // 3 * 3].reshape(-1, 3)
    if len(faces) and (faces.max() >= count or faces.min() < 0):
        wrong = faces.max() if faces.max() >= count else faces.min()
        raise InputError(f"{file.path} is damaged: a face names vertex {wrong} of {count}.")
    return points, faces


def _stored_weights(file: GltfFile, node: int, count: int) -> Doubles:
    """The morph targets' weights (1, count) where they are not animated: the node's, else the mesh's, else 0."""
    weights = file.node_weights.get(node) or file.gltf.meshes[file.gltf.nodes[node].mesh].weights or [0.0] * count
    return np.asarray([weights], np.float64)


def _skin_matrices(file: GltfFile, skin: Any, attributes: Any, worlds: dict[int, Doubles]) -> Doubles:
    """Each vertex's matrix (t, v, 4, 4), blended from its joints'; the mesh's own node does not count."""
    inverse = np.tile(np.eye(4), (len(skin.joints), 1, 1))
    if skin.inverseBindMatrices is not None:
        inverse = file.array(skin.inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2)
    joints = np.stack([worlds[joint] @ inverse[k] for k, joint in enumerate(skin.joints)], axis=1)
    blended: Any = 0.0
    whole: Any = 0.0
    for layer in range(8):
        names = [getattr(attributes, f"{kind}_{layer}", None) for kind in ("JOINTS", "WEIGHTS")]
        if None in names:
            break
        which, weights = (file.array(name) for name in names if name is not None)
        for corner in range(4):
            blended = blended + joints[:, which[:, corner]] * weights[:, corner, None, None]
        whole = whole + weights.sum(-1)
    if isinstance(whole, float):
        raise InputError(f"{file.path} has a skin without joints and weights at its vertices; it is damaged.")
    return np.asarray(blended / np.maximum(whole, 1e-12)[:, None, None])


def _colored(
    file: GltfFile, vertices: Doubles, faces: Faces, primitive: Any, longest: float, room: int
) -> tuple[Doubles, Faces, Doubles]:
    """Vertices, faces and sRGB colors; split finely where there is a texture, into as many as there is room for."""
    factor, texture = _base_color(file, primitive.material)
    count = vertices.shape[1]
    paint = np.ones((count, 3))
    stored = getattr(primitive.attributes, "COLOR_0", None)
    if stored is not None:
        paint = file.array(stored)[:, :3].astype(np.float64)
    places = np.zeros((count, 2))
    if texture is not None:
        coordinates = getattr(primitive.attributes, f"TEXCOORD_{texture.get('texCoord') or 0}", None)
        if coordinates is None:
            raise InputError(f"{file.path} has a texture but no texture coordinates; save it with them.")
        places = _transformed(file.array(coordinates).astype(np.float64), texture)
        if not np.isfinite(places).all():
            raise InputError(f"{file.path} has texture coordinates that are not finite numbers.")
        vertices, faces, extra = _split(file, vertices, faces, np.concatenate((paint, places), 1), longest, room)
        paint, places = extra[:, :3], extra[:, 3:]
        paint = paint * _linear(_looked_up(file.image(file.gltf.textures[texture["index"]].source), places))
    return vertices, faces, _srgb(paint * factor)


def _base_color(file: GltfFile, material: int | None) -> tuple[Doubles, dict[str, Any] | None]:
    """The linear base color and the texture, as a dictionary with the file's keys, if there is one."""
    if material is None:
        return np.ones(3), None
    held = file.gltf.materials[material]
    glossy = (held.extensions or {}).get("KHR_materials_pbrSpecularGlossiness")
    if glossy is not None:
        return np.asarray(glossy.get("diffuseFactor", (1, 1, 1, 1))[:3], np.float64), glossy.get("diffuseTexture")
    rough = held.pbrMetallicRoughness
    if rough is None:
        return np.ones(3), None
    factor = np.asarray((rough.baseColorFactor or (1, 1, 1, 1))[:3], np.float64)
    info = rough.baseColorTexture
    if info is None:
        return factor, None
    return factor, {"index": info.index, "texCoord": info.texCoord, "extensions": info.extensions}


def _transformed(places: Doubles, texture: dict[str, Any]) -> Doubles:
    """Texture coordinates (v, 2) after KHR_texture_transform."""
    change = (texture.get("extensions") or {}).get("KHR_texture_transform", {})
    angle = change.get("rotation", 0.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((places * change.get("scale", (1, 1))) @ turn.T + change.get("offset", (0, 0)))


def _looked_up(image: NDArray[np.uint8], places: Doubles) -> Doubles:
    """Colors (v, 3), 0 to 1, of a repeating image at texture coordinates (v, 2), between pixels."""
    height, width = image.shape[:2]
    x, y = places[:, 0] * width - 0.5, places[:, 1] * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = (x - left)[:, None], (y - top)[:, None]

    def at(row: NDArray[np.int_], column: NDArray[np.int_]) -> Doubles:
        return np.asarray(image[row % height, column % width], np.float64) / 255

    upper = at(top, left) * (1 - u) + at(top, left + 1) * u
    lower = at(top + 1, left) * (1 - u) + at(top + 1, left + 1) * u
    return np.asarray(upper * (1 - v) + lower * v)


def _split(
    file: GltfFile, vertices: Doubles, faces: Faces, extra: Doubles, longest: float, room: int
) -> tuple[Doubles, Faces, Doubles]:
    """Halves every edge longer than `longest` in some frame, again and again; neighbors split a shared edge alike.

    Args:
        file: that they come from.
        vertices: (t, v, 3).
        faces: (f, 3).
        extra: (v, k) what is interpolated along.
        longest: in the vertices' unit.
        room: triangles that it may become.
    """
    for _ in range(MAX_SPLITS):
        ends = np.sort(np.stack((faces, np.roll(faces, -1, 1)), -1), -1).reshape(-1, 2)
        edges, which = np.unique(ends, axis=0, return_inverse=True)
        length = np.linalg.norm(vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]], axis=-1).max(0)
        long = length > longest
        if not long.any():
            break
        _check_room(file, room - len(faces) - int(long[which].sum()))  # each edge of a face that is cut adds a face
        middle = np.full(len(edges), -1)
        middle[long] = vertices.shape[1] + np.arange(long.sum())
        a, b = edges[long].T
        vertices = np.concatenate((vertices, (vertices[:, a] + vertices[:, b]) / 2), axis=1)
        extra = np.concatenate((extra, (extra[a] + extra[b]) / 2))
        faces = _retriangulated(faces, middle[which.reshape(-1, 3)])
    return vertices, faces, extra


def _retriangulated(faces: Faces, middles: Faces) -> Faces:
    """Faces (f, 3) with the middles (f, 3) of their edges 01, 12, 20 as new corners; -1 where an edge stays whole."""
    cut = middles >= 0
    count = cut.sum(1)
    # Turn each face so that its one cut edge comes first, or its one whole edge last.
    turn = np.where(count == 1, cut.argmax(1), np.where(count == 2, (np.argmin(cut, 1) + 1) % 3, 0))
    order = (turn[:, None] + np.arange(3)) % 3
    (a, b, c), (p, q, r) = np.take_along_axis(faces, order, 1).T, np.take_along_axis(middles, order, 1).T
    shapes = {
        0: [(a, b, c)],
        1: [(a, p, c), (p, b, c)],
        2: [(a, p, c), (p, q, c), (p, b, q)],
        3: [(a, p, r), (p, b, q), (r, q, c), (p, q, r)],
    }
    return np.concatenate([np.stack(face, -1)[count == cuts] for cuts, made in shapes.items() for face in made])


def _linear(color: Doubles) -> Doubles:
    return np.asarray(np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4))


def _srgb(color: Doubles) -> Doubles:
    color = np.clip(color, 0, 1)
    return np.asarray(np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055))
