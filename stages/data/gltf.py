"""Turn animated glTF and GLB assets into `AnimatedMesh`: node animation, skins, morph targets, colors and textures.

Axes: t frame, v vertex, f face. A file is y up with its front at +z; the world is z up with its front at -y.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ss4d.stages.data.gltf_animation import animations, tracks
from ss4d.stages.data.gltf_choice import USUAL_CHOICE, AnimationChoice, Moving, Play, chosen, probed, ways_to_move
from ss4d.stages.data.gltf_file import USUAL_LIMITS, AssetLimits, GltfFile
from ss4d.stages.data.gltf_materials import Look, look, paint, painted
from ss4d.stages.data.gltf_nodes import world_matrices
from ss4d.stages.data.gltf_parts import Part, check_room, parts
from ss4d.stages.data.gltf_references import AGAIN
from ss4d.stages.data.gltf_textures import Images
from ss4d.stages.data.mesh import SOLID, AnimatedMesh, fit, mean_normals, placed
from ss4d.stages.data.motion import size
from ss4d.stages.data.surface import Faces, Floats, Mask, Surface
from ss4d.stages.errors import InputError

TEXTURE_EDGE = 1 / 64  # textured faces are split until no edge is longer, as a share of the object's size
BORDER_EDGE = 1 / 256  # and those through which the border of what is seen runs, until none is longer than this
MAX_SPLITS = 7
BORDER_SPLITS = 2
SEEN = 0.02  # alpha below which a surface is not there at all
OPAQUE = 1 - 1 / 512  # alpha from which on nothing is seen through it


@dataclass(frozen=True, eq=False)
class Asset:
    """A clip of a file.

    Attributes:
        mesh: what is seen.
        play: which animation that is, and when.
    """

    mesh: AnimatedMesh
    play: Play


def load_animated(
    path: Path,
    num_frames: int,
    fps: float,
    *,
    choice: AnimationChoice = USUAL_CHOICE,
    limits: AssetLimits = USUAL_LIMITS,
) -> AnimatedMesh:
    """The mesh of `load_asset`."""
    return load_asset(path, num_frames, fps, choice=choice, limits=limits).mesh


def load_asset(
    path: Path,
    num_frames: int,
    fps: float,
    *,
    choice: AnimationChoice = USUAL_CHOICE,
    limits: AssetLimits = USUAL_LIMITS,
) -> Asset:
    """The file's scene while its animations play, sampled at `fps` and repeated when they are shorter than the clip.

    Colors are the base color, with what glows added: factor, vertex color and texture, which is looked up at the
    vertices after faces are split finely. Where alpha cuts a surface off it ends there; where alpha lets something
    through, vertices have their opacity. A file without an animation stands still.

    Args:
        path: a .gltf or .glb file.
        num_frames: length of the clip.
        fps: frames a second of the animation's own time.
        choice: of animation and time; by default, what moves.
        limits: what the file may cost.

    Raises:
        InputError: the file cannot be used; the sentence says why.
    """
    file = GltfFile(path, limits)
    with _damage(path):
        drawn = parts(file)
        play = chosen(file, drawn, animations(file), choice, num_frames / fps)
        return Asset(_mesh(file, drawn, play, num_frames, fps, choice.in_place), play)


def moving(path: Path, limits: AssetLimits = USUAL_LIMITS, *, together: bool = False) -> list[Moving]:
    """Each animation of a file in which something moves; if `together`, those that move different things as one.

    Raises:
        InputError: as `load_asset` does.
    """
    file = GltfFile(path, limits)
    with _damage(path):
        return ways_to_move(file, parts(file), animations(file), together=together)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what only a damaged file brings about into a sentence; numbers too large are told of where they matter."""
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged: it refers to something it does not hold ({error}); export it again."
        ) from error


def _mesh(
    file: GltfFile, drawn: Sequence[Part], play: Play, num_frames: int, fps: float, in_place: bool
) -> AnimatedMesh:
    """The parts that are seen, in the world, fitted into the grid."""
    pairs = [(part.flat_without_normals(), look(file, part)) for part in drawn]
    pairs = [(part, held) for part, held in pairs if not _invisible(held)]
    if not pairs:
        raise InputError(f"{file.path} shows nothing: all its materials are transparent; give them an alpha.")
    posed = _posed(file, [part for part, _ in pairs], play, num_frames, fps)
    if in_place:
        posed = _in_place(posed)
    extent = size(np.concatenate([np.concatenate((s.vertices.min(1), s.vertices.max(1))) for s in posed]))
    images, made = Images(file), dict[int, Surface]()
    room = file.limits.max_triangles
    # Those that show the same images one after the other, so that each image is decoded once and few are held.
    for index in sorted(range(len(pairs)), key=lambda i: pairs[i][1].images):
        part, held = pairs[index]
        images.keep(held.images)
        surface = replace(posed[index], values=paint(file, part, held))
        made[index] = _cut_out(images, held, surface, extent, partial(_check, file, room))
        room -= len(made[index].faces)
        check_room(file, room)
    one_sided = [np.full(len(made[i].values), not held.double_sided) for i, (_, held) in enumerate(pairs)]
    return _joined(file, [made[i] for i in range(len(pairs))], np.concatenate(one_sided))


def _check(file: GltfFile, room: int, count: int) -> None:
    check_room(file, room - count)


def _invisible(held: Look) -> bool:
    """Whether nothing of it is seen, whatever its texture: such are shells and shadows that only some programs draw."""
    return held.mode != "OPAQUE" and held.factor[3] < (held.cutoff if held.mode == "MASK" else SEEN)


def _posed(file: GltfFile, seen: Sequence[Part], play: Play, num_frames: int, fps: float) -> list[Surface]:
    """Each part's surface in the file's world, moved near the origin and scaled alike to a size near 1."""
    times = play.times(num_frames, fps)
    values = tracks(play.channels, times)
    worlds = world_matrices(file, values, num_frames)
    some = probed(file, seen, play.channels, times[[0, num_frames // 2, -1]]).reshape(-1, 3)
    center, unit, made = some.mean(0), size(some), []
    for part in seen:
        vertices, normals, mirrored = part.posed(values, worlds, num_frames, (center, unit))
        if not np.isfinite(vertices).all():
            raise InputError(f"{file.path}: {part.name} moves to positions that are not finite numbers; {AGAIN}")
        faces = part.faces[:, ::-1] if mirrored < 0 else part.faces
        made.append(Surface(vertices, faces, _unit_normals(vertices, faces, normals), np.empty((len(part.rows), 0))))
    return made


def _unit_normals(vertices: Floats, faces: Faces, normals: Floats | None) -> Floats:
    """The file's normals; where it has none that are directions, the mean of the faces around."""
    if normals is None:
        return mean_normals(vertices, faces)
    with np.errstate(all="ignore"):
        made: Floats = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    wrong = np.asarray(~np.isfinite(made).all(-1))
    return np.where(wrong[..., None], mean_normals(vertices, faces), made) if wrong.any() else made


def _in_place(posed: Sequence[Surface]) -> list[Surface]:
    """Without the object's way: the mean of its vertices stays over one spot, and rises or sinks no more in the end.

    What it does in between, such as a jump, stays.
    """
    count = sum(surface.vertices.shape[1] for surface in posed)
    way = np.sum([surface.vertices.sum(1, dtype=np.float64) for surface in posed], axis=0) / count
    way -= way[0]
    way[:, 1] = way[-1, 1] * np.linspace(0, 1, len(way))
    return [replace(surface, vertices=surface.vertices - way[:, None].astype(np.float32)) for surface in posed]


def _cut_out(images: Images, held: Look, surface: Surface, extent: float, check: Callable[[int], None]) -> Surface:
    """The surface with colors and opacity as its values, split finely where it has a texture, as far as it is seen."""
    for _ in range(MAX_SPLITS if held.images else 0):
        finer = surface.halved(partial(surface.longer, length=TEXTURE_EDGE * extent), check)
        if finer is surface:
            break
        surface = finer
    colors = painted(images, held, surface.values)
    if held.mode == "OPAQUE":
        colors[:, 3] = 1
        return replace(surface, values=colors)
    border = held.cutoff if held.mode == "MASK" else SOLID
    for _ in range(BORDER_SPLITS if held.images else 0):
        surface = surface.halved(partial(_crossed, surface, colors[:, 3] >= border, BORDER_EDGE * extent), check)
        colors = painted(images, held, surface.values)
    surface = replace(surface, values=colors).cut(colors[:, 3], border if held.mode == "MASK" else SEEN)
    if held.mode == "MASK":
        surface.values[:, 3] = 1
    return surface


def _crossed(surface: Surface, inside: Mask, length: float, edges: Faces) -> Mask:
    """Which edges (e, 2) have one end of two inside and are longer than `length`."""
    return np.asarray((inside[edges[:, 0]] != inside[edges[:, 1]]) & surface.longer(edges, length))


def _joined(file: GltfFile, surfaces: Sequence[Surface], one_sided: Mask) -> AnimatedMesh:
    """All surfaces as one mesh in the world, fitted by what of it is solid."""
    first = np.cumsum([0] + [len(surface.values) for surface in surfaces])
    colors = np.concatenate([surface.values for surface in surfaces]).astype(np.float32)
    normals = _to_world(np.concatenate([surface.normals for surface in surfaces], axis=1))
    mesh = AnimatedMesh(
        vertices=_to_world(np.concatenate([surface.vertices for surface in surfaces], axis=1)),
        faces=np.concatenate([surface.faces + start for surface, start in zip(surfaces, first, strict=False)]).astype(
            np.int32
        ),
        colors=np.ascontiguousarray(colors[:, :3]),
        stored_normals=normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), np.float32(1e-20)),
        opacity=np.ascontiguousarray(colors[:, 3]) if bool((colors[:, 3] < OPAQUE).any()) else None,
        one_sided=one_sided,
    )
    solid = mesh.solid()
    if not len(solid.faces):
        raise InputError(
            f"{file.path} has no surface that hides at least a third of what is behind it; make it less transparent."
        )
    center, reach = fit(solid.vertices)
    if not reach > 0:
        raise InputError(f"{file.path} has no surface: no extent in any frame; give one that shows something.")
    return replace(mesh, vertices=placed(mesh.vertices, center, reach))


def _to_world(vectors: Floats) -> Floats:
    """From y up, with the front at +z, to z up, with the front at -y."""
    return np.stack((vectors[..., 0], -vectors[..., 2], vectors[..., 1]), -1)
