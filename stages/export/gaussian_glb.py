"""Gaussians as one animated GLB with the extension KHR_gaussian_splatting: a node for each frame, shown in its turn.

Files are y up: world (x, y, z) is written as (x, z, -y). Where the extension is not known, the same file is a cloud of
colored points. A node is hidden by a scale of 0, which changes in steps, so that every player of glTF can play it.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ss4d.stages.export.frame_animation import HIDDEN, animation_parts, frame_animation
from ss4d.stages.export.glb_file import UNSIGNED_BYTE, VERTICES, GlbArrays, write_glb
from ss4d.stages.export.packing import SH_C0, linear_light
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.types import GaussianClip, Progress

NAME = "gaussians.glb"
EXTENSION = "KHR_gaussian_splatting"
PROPERTIES = {
    "kernel": "ellipse",
    "colorSpace": "srgb_rec709_display",
    "projection": "perspective",
    "sortingMethod": "cameraDistance",
}


def write_gaussian_glb(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `gaussians.glb`.

    Raises:
        InputError: it would be larger than a GLB can be.
    """
    arrays = GlbArrays()
    meshes: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    for t, frame in enumerate(scene.frames(GL_FROM_WORLD)):
        node: dict[str, Any] = {"name": f"frame{t + 1:04d}"}
        if len(frame.means):  # glTF has no empty arrays
            node["mesh"] = len(meshes)
            meshes.append({"primitives": [_primitive(arrays, frame)]})
        if t:
            node["scale"] = HIDDEN
        nodes.append(node)
    document: dict[str, Any] = {
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes))), "extras": {"filter": "mip", "fps": scene.fps}}],
        "nodes": nodes,
    }
    if meshes:
        document["meshes"] = meshes
    if scene.num_frames > 1:
        document["animations"] = [frame_animation(arrays, scene.num_frames, scene.fps)]
    write_glb(folder / NAME, document, arrays, _parts(scene, progress))
    return (NAME,)


def _primitive(arrays: GlbArrays, frame: GaussianClip) -> dict[str, Any]:
    """A frame's points, whose bytes `_columns` gives in the same order."""
    add = partial(arrays.add, len(frame.means), target=VERTICES)
    attributes = {
        "POSITION": add("VEC3", min=frame.means.amin(0).tolist(), max=frame.means.amax(0).tolist()),
        "COLOR_0": add("VEC4", UNSIGNED_BYTE, normalized=True),
        f"{EXTENSION}:ROTATION": add("VEC4"),
        f"{EXTENSION}:SCALE": add("VEC3"),
        f"{EXTENSION}:OPACITY": add("SCALAR"),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": add("VEC3"),
    }
    return {"mode": 0, "attributes": attributes, "extensions": {EXTENSION: PROPERTIES}}


def _parts(scene: Scene, progress: Progress) -> Iterator[bytes]:
    for t, frame in enumerate(scene.frames(GL_FROM_WORLD)):
        for column in _columns(frame) if len(frame.means) else ():
            yield column.tobytes()
        progress(t + 1, scene.num_frames)
    if scene.num_frames > 1:
        yield from animation_parts(scene.num_frames, scene.fps)


def _columns(frame: GaussianClip) -> tuple[NDArray[Any], ...]:
    paint = torch.cat([linear_light(frame.colors.clamp(0, 1)), frame.opacities[:, None].clamp(0, 1)], dim=1)
    floats = (
        torch.nn.functional.normalize(frame.quats, dim=1).roll(-1, dims=1),  # (x, y, z, w)
        frame.scales,
        frame.opacities.clamp(0, 1),
        (frame.colors - 0.5) / SH_C0,
    )
    return (
        frame.means.numpy().astype("<f4"),
        (paint * 255).round().byte().numpy(),
        *(column.numpy().astype("<f4") for column in floats),
    )
