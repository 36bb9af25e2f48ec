"""The page that shows an asset, to turn and to play: all in one file (`html.py`), or served frame by frame.

It shows layers beside each other, each with bytes of its own for every frame: the input, the Gaussians, the mesh.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Literal

from ss4d.stages.export.base85 import ALPHABET
from ss4d.stages.export.mesh_frames import encode_mesh, most_bytes
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.export.spz import LEAST_LOG_SCALE, SCALE_STEPS, encode_spz
from ss4d.stages.export.viewer_files import viewer_file
from ss4d.stages.html_page import content_policy, filled_page, json_element
from ss4d.stages.input_camera import opening, view_of
from ss4d.stages.input_pictures import encode_input
from ss4d.stages.ops.geometry import FRONT_YAW, ORBIT_FOV, ORBIT_RADIUS

Layer = Literal["input", "splats", "mesh"]
SCRIPTS = ("splats.js", "spz.js", "pictures.js", "mesh.js", "orbit.js", "frames.js", "viewer.js")
LEAST_EXTENT = 1e-6
PICTURE_SIDE = 384  # most pixels of the input's pictures along a side
HINT = (
    "Drag to turn, scroll or pinch to zoom, drag with shift or two fingers to move. Arrows turn, + and - zoom, space "
    "plays, comma and full stop step, 0 shows the front, v what the input saw, b changes the background, f fills the "
    "screen, s saves a picture."
)
SWITCHES: Mapping[Layer, str] = {"input": "i input", "splats": "g Gaussians", "mesh": "m mesh"}


def _input(scene: Scene, t: int) -> bytes:
    assert scene.clip is not None
    return encode_input(scene.clip, t, PICTURE_SIDE)


def _splats(scene: Scene, t: int) -> bytes:
    return encode_spz(scene.frame(t, GL_FROM_WORLD))


def _mesh(scene: Scene, t: int) -> bytes:
    assert scene.meshes is not None
    return encode_mesh(scene.meshes.frame(t))


_ENCODERS: Mapping[Layer, Callable[[Scene, int], bytes]] = {"input": _input, "splats": _splats, "mesh": _mesh}


def layers(scene: Scene) -> tuple[Layer, ...]:
    """What the page shows of an asset, from left to right."""
    there = {"input": scene.clip is not None, "splats": True, "mesh": scene.meshes is not None}
    return tuple(layer for layer in _ENCODERS if there[layer])


def layer_bytes(scene: Scene, layer: Layer, t: int) -> bytes:
    """Frame `t` of a layer as the page's scripts read it: the input in WebP, Gaussians in SPZ, meshes packed."""
    return _ENCODERS[layer](scene, t)


def _hint(shown: Sequence[Layer]) -> str:
    """What keys and fingers do; of the layers only those that can be seen."""
    switches = ", ".join(SWITCHES[layer] for layer in shown)
    return f"{HINT} These show or hide what lies side by side: {switches}." if len(shown) > 1 else HINT


def viewer_page(scene: Scene, frames: str, *, served: bool) -> str:
    """The page's HTML.

    Args:
        scene: what it shows.
        frames: HTML that holds the frames; empty where they are served.
        served: whether its scripts ask for `frames/LAYER/NUMBER` where the page came from; else they load nothing.
    """
    script = "".join(map(viewer_file, SCRIPTS))
    parts = {
        "title": escape(scene.name),
        "policy": content_policy(script, images="data: blob:", connections="'self'" if served else "'none'"),
        "last_frame": scene.num_frames - 1,
        "hint": escape(_hint(layers(scene))),
        "data": json_element(_data(scene, served)),
        "frames": frames,
    }
    return filled_page(viewer_file("viewer.html"), parts, style=viewer_file("viewer.css"), script=script)


def _data(scene: Scene, served: bool) -> dict[str, Any]:
    """What the scripts need to know besides the frames; bounds are those of the centers, in world space."""
    gaussians = scene.gaussians
    some = len(gaussians.means) > 0
    low = gaussians.means.amin(0).tolist() if some else [0.0, 0.0, 0.0]
    high = gaussians.means.amax(0).tolist() if some else [1.0, 1.0, 1.0]
    first = scene.turntable.shots[0]
    return {
        "name": scene.name,
        "served": served,
        "layers": layers(scene),
        "alphabet": ALPHABET,
        "num_frames": scene.num_frames,
        "fps": scene.fps,
        "gaussians": gaussians.offsets.diff().tolist(),
        "mesh_bytes": 0 if scene.meshes is None else most_bytes(scene.meshes),
        "origin": low,
        "extent": [max(b - a, LEAST_EXTENT) for a, b in zip(low, high, strict=True)],
        "log_scale": [LEAST_LOG_SCALE, LEAST_LOG_SCALE + 255 / SCALE_STEPS],
        "view": {"yaw": first.yaw, "pitch": first.pitch, "radius": ORBIT_RADIUS, "fov": ORBIT_FOV, "shift": [0, 0]},
        "input_view": _input_view(scene),
    }


def _input_view(scene: Scene) -> dict[str, Any] | None:
    """The camera that saw the input, as the page has cameras; None where it is not known."""
    if scene.camera is None:
        return None
    view = view_of(scene.camera)
    return {
        "yaw": (FRONT_YAW + view.yaw) % 360,
        "pitch": view.pitch,
        "radius": view.distance,
        "fov": opening(view.focal),
        "shift": list(view.shift),
    }
