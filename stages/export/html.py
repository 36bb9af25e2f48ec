"""An asset as one HTML page that needs nothing else: SPZ frames, and the viewer that plays them."""

from html import escape
from pathlib import Path
from typing import Any

from ss4d.stages.export.base85 import ALPHABET, base85
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.export.spz import LEAST_LOG_SCALE, SCALE_STEPS, encode_spz
from ss4d.stages.export.viewer_files import viewer_file
from ss4d.stages.html_page import filled_page, json_element
from ss4d.stages.ops.geometry import ORBIT_FOV, ORBIT_RADIUS
from ss4d.stages.types import Progress

NAME = "viewer.html"
SCRIPTS = ("splats.js", "spz.js", "orbit.js", "viewer.js")
LEAST_EXTENT = 1e-6
FRAMES = "\0"  # stands in the template for what is written frame by frame
HINT = (
    "Drag to turn, scroll or pinch to zoom, drag with shift or two fingers to move. With the picture in focus: arrows "
    "turn, + and - zoom, space plays, comma and full stop step, 0 shows the front, b changes the background, f fills "
    "the screen, s saves a picture."
)


def write_html(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `viewer.html`, frame by frame."""
    parts = {
        "title": escape(scene.name),
        "last_frame": scene.num_frames - 1,
        "hint": escape(HINT),
        "data": json_element(_data(scene)),
        "frames": FRAMES,
    }
    script = "".join(map(viewer_file, SCRIPTS))
    page = filled_page(viewer_file("viewer.html"), parts, style=viewer_file("viewer.css"), script=script)
    head, tail = page.split(FRAMES)
    with (folder / NAME).open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for t, frame in enumerate(scene.frames(GL_FROM_WORLD)):
            file.write(f'<script type="text/plain" class="frame">{base85(encode_spz(frame))}</script>\n')
            progress(t + 1, scene.num_frames)
        file.write(tail)
    return (NAME,)


def _data(scene: Scene) -> dict[str, Any]:
    """What the scripts need to know besides the frames; bounds are those of the centers, in world space."""
    gaussians = scene.gaussians
    some = len(gaussians.means) > 0
    low = gaussians.means.amin(0).tolist() if some else [0.0, 0.0, 0.0]
    high = gaussians.means.amax(0).tolist() if some else [1.0, 1.0, 1.0]
    first = scene.turntable.shots[0]
    return {
        "name": scene.name,
        "alphabet": ALPHABET,
        "num_frames": scene.num_frames,
        "fps": scene.fps,
        "gaussians": gaussians.offsets.diff().tolist(),
        "origin": low,
        "extent": [max(b - a, LEAST_EXTENT) for a, b in zip(low, high, strict=True)],
        "log_scale": [LEAST_LOG_SCALE, LEAST_LOG_SCALE + 255 / SCALE_STEPS],
        "view": {"yaw": first.yaw, "pitch": first.pitch, "radius": ORBIT_RADIUS, "fov": ORBIT_FOV},
    }
