"""An asset as one HTML page that needs nothing else: the frames in it, and the viewer that plays them."""

from pathlib import Path

from ss4d.stages.export.base85 import base85
from ss4d.stages.export.scene import Scene
from ss4d.stages.export.viewer_page import layer_bytes, layers, viewer_page
from ss4d.stages.types import Progress

NAME = "viewer.html"
FRAMES = "\0"  # stands in the page for what is written frame by frame


def write_html(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `viewer.html`, frame by frame."""
    head, tail = viewer_page(scene, FRAMES, served=False).split(FRAMES)
    with (folder / NAME).open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        for t in range(scene.num_frames):
            for layer in layers(scene):
                text = base85(layer_bytes(scene, layer, t))
                file.write(f'<script type="text/plain" data-layer="{layer}">{text}</script>\n')
            progress(t + 1, scene.num_frames)
        file.write(tail)
    return (NAME,)
