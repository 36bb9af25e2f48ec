"""A run's asset as a page on this machine: the viewer, and each frame when the page asks for it."""

import threading
from collections import OrderedDict

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from ss4d.pipelines.inspect.asset import scene_of_run
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.pipelines.view.local_server import guarded_app
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.scene import Scene
from ss4d.stages.export.viewer_page import Layer, layer_bytes, layers, viewer_page

KEPT = 256 * 2**20  # bytes of frames that are kept for the next time they are asked for


def viewed_scene(run: OpenedRun) -> Scene:
    """What the page shows.

    Raises:
        StoreError: the asset or the clip is not stored, or damaged.
    """
    return scene_of_run(run, ExportConfig())


def view_app(scene: Scene) -> FastAPI:
    """The page of an asset at `/`, and the bytes of its frames at `/frames/LAYER/NUMBER`; there is nothing else."""
    app, frames = guarded_app(), Frames(scene)
    page = viewer_page(scene, "", served=True)

    @app.get("/")
    def _page() -> Response:
        return HTMLResponse(page)

    @app.get("/frames/{layer}/{number}")
    def _frame(layer: str, number: int) -> Response:
        return frame_answer(frames, layer, number)

    return app


def frame_answer(frames: "Frames", layer: str, number: int) -> Response:
    """A frame of a layer, as the page asked for it."""
    known = next((name for name in layers(frames.scene) if name == layer), None)
    if known is None or not 0 <= number < frames.scene.num_frames:
        return Response(status_code=404)
    return Response(frames.read(known, number), media_type="application/octet-stream")


class Frames:
    """The bytes of frames, made when they are asked for first; those asked for last are kept.

    Args:
        scene: the asset.
        most: bytes that are kept.
    """

    def __init__(self, scene: Scene, most: int = KEPT) -> None:
        self.scene, self._left = scene, most
        self._kept: OrderedDict[tuple[Layer, int], bytes] = OrderedDict()
        self._lock = threading.Lock()  # requests are answered in threads

    def read(self, layer: Layer, t: int) -> bytes:
        """The bytes of frame `t` of a layer."""
        with self._lock:
            data = self._kept.pop((layer, t), None)
            if data is None:
                data = layer_bytes(self.scene, layer, t)
                self._left -= len(data)
            self._kept[layer, t] = data
            while self._left < 0 and len(self._kept) > 1:
                self._left += len(self._kept.popitem(last=False)[1])
            return data
