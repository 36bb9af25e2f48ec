"""Textured meshes as one animated GLB: a node for each frame, shown in its turn by a scale that changes in steps.

Files are y up: world (x, y, z) is written as (x, z, -y). The material shows its texture as it is, without light
(KHR_materials_unlit), since the texture holds the light of the clip; a program that does not know that lights it.
"""

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ss4d.stages.export.frame_animation import HIDDEN, animation_parts, frame_animation
from ss4d.stages.export.glb_file import INDICES, UNSIGNED_INT, VERTICES, GlbArrays, write_glb
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.ops.geometry import rotate_mesh
from ss4d.stages.types import MeshClip, Progress

NAME = "mesh.glb"
UNLIT = "KHR_materials_unlit"
QUALITY = 92  # of the textures, which are JPEG files
LINEAR, MIPMAPS, CLAMP = 9729, 9987, 33071  # how textures are read, as glTF counts that


def write_mesh_glb(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `mesh.glb`; the scene has meshes.

    Raises:
        InputError: it would be larger than a GLB can be.
    """
    assert scene.meshes is not None, "the caller asks for meshes where a format is made of them"
    meshes = rotate_mesh(scene.meshes, GL_FROM_WORLD)
    frames = [meshes.frame(t) for t in range(meshes.num_frames)]
    pictures = [_picture(frame) if len(frame.faces) else b"" for frame in frames]
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
    materials: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for t, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        node: dict[str, Any] = {"name": f"frame{t + 1:04d}"}
        if len(frame.faces):  # glTF has no empty arrays
            number = node["mesh"] = len(meshes)
            meshes.append({"primitives": [{**_primitive(arrays, frame), "material": number}]})
            color = {"baseColorTexture": {"index": number}, "metallicFactor": 0, "roughnessFactor": 1}
            materials.append({"pbrMetallicRoughness": color, "extensions": {UNLIT: {}}})
            images.append({"bufferView": arrays.add_bytes(len(picture)), "mimeType": "image/jpeg"})
        if t:
            node["scale"] = HIDDEN
        nodes.append(node)
    document: dict[str, Any] = {"scene": 0, "scenes": [{"nodes": list(range(len(nodes)))}], "nodes": nodes}
    if meshes:
        document |= {
            "extensionsUsed": [UNLIT],
            "meshes": meshes,
            "materials": materials,
            "textures": [{"sampler": 0, "source": number} for number in range(len(images))],
            "samplers": [{"magFilter": LINEAR, "minFilter": MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
            "images": images,
        }
    return document


def _primitive(arrays: GlbArrays, frame: MeshClip) -> dict[str, Any]:
    add = partial(arrays.add, len(frame.vertices), target=VERTICES)
    least, most = frame.vertices.amin(0).tolist(), frame.vertices.amax(0).tolist()
    attributes = {"POSITION": add("VEC3", min=least, max=most), "TEXCOORD_0": add("VEC2")}
    return {
        "attributes": attributes,
        "indices": arrays.add(frame.faces.numel(), "SCALAR", UNSIGNED_INT, target=INDICES),
    }


def _parts(frames: Sequence[MeshClip], pictures: Sequence[bytes], fps: float, progress: Progress) -> Iterator[bytes]:
    for t, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        if len(frame.faces):
            yield frame.vertices.numpy().astype("<f4").tobytes()
            yield frame.uv.numpy().astype("<f4").tobytes()
            yield frame.faces.numpy().astype("<u4").tobytes()
            yield picture
        progress(t + 1, len(frames))
    if len(frames) > 1:
        yield from animation_parts(len(frames), fps)


def _picture(frame: MeshClip) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame.texture[0].numpy()).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()
