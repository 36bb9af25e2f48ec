"""Textured meshes as one animated GLB: a node for each frame, shown in its turn by a scale that changes in steps.

One mesh that moves is written as morph targets instead, by `moving_mesh_glb`.

Files are y up: world (x, y, z) is written as (x, z, -y). The material shows its texture as it is, without light
(KHR_materials_unlit), since the texture holds the light of the clip; a program that does not know that lights it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ss4d.stages.export.frame_animation import HIDDEN, animation_parts, frame_animation
from ss4d.stages.export.glb_file import GlbArrays, write_glb
from ss4d.stages.export.glb_mesh import materials, mesh_parts, picture, primitive
from ss4d.stages.export.moving_mesh_glb import write_moving_mesh
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.ops.geometry import rotate_mesh
from ss4d.stages.types import MeshClip, Progress

NAME = "mesh.glb"


def write_mesh_glb(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `mesh.glb`; the scene has meshes.

    Raises:
        InputError: it would be larger than a GLB can be.
    """
    assert scene.meshes is not None, "the caller asks for meshes where a format is made of them"
    meshes = rotate_mesh(scene.meshes, GL_FROM_WORLD)
    if meshes.one_topology:
        write_moving_mesh(folder / NAME, meshes, scene.fps, progress)
        return (NAME,)
    frames = [meshes.frame(t) for t in range(meshes.num_frames)]
    pictures = [picture(frame.texture[0]) if len(frame.faces) else b"" for frame in frames]
    arrays = GlbArrays()
    document = _document(arrays, frames, pictures)
    if len(frames) > 1:
        document["animations"] = [frame_animation(arrays, len(frames), scene.fps)]
    write_glb(folder / NAME, document, arrays, _parts(frames, pictures, scene.fps, progress))
    return (NAME,)


def _document(arrays: GlbArrays, frames: Sequence[MeshClip], pictures: Sequence[bytes]) -> dict[str, Any]:
    """All but the animation; declares the arrays of the frames, whose bytes `_parts` gives in the same order."""
    nodes: list[dict[str, Any]] = []
    meshes: list[dict[str, Any]] = []
    views: list[int] = []
    for t, (frame, texture) in enumerate(zip(frames, pictures, strict=True)):
        node: dict[str, Any] = {"name": f"frame{t + 1:04d}"}
        if len(frame.faces):  # glTF has no empty arrays
            node["mesh"] = len(meshes)
            meshes.append({"primitives": [primitive(arrays, frame, material=len(views))]})
            views.append(arrays.add_bytes(len(texture)))
        if t:
            node["scale"] = HIDDEN
        nodes.append(node)
    document: dict[str, Any] = {"scene": 0, "scenes": [{"nodes": list(range(len(nodes)))}], "nodes": nodes}
    return document | {"meshes": meshes, **materials(views)} if meshes else document


def _parts(frames: Sequence[MeshClip], pictures: Sequence[bytes], fps: float, progress: Progress) -> Iterator[bytes]:
    for t, (frame, texture) in enumerate(zip(frames, pictures, strict=True)):
        if len(frame.faces):
            yield from mesh_parts(frame)
            yield texture
        progress(t + 1, len(frames))
    if len(frames) > 1:
        yield from animation_parts(len(frames), fps)
