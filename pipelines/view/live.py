"""What the stages of a run made, as layers of one scene over time, also while the run goes on.

Needs the package viser (the extra `viewer`); `viser_package.py` looks whether it is there. Only the frame that is shown
is handed to viser: a long clip takes no more memory in a browser than a short one.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import viser
from PIL import Image
from trimesh import Trimesh
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from ss4d.pipelines.inspect.asset import CAMERAS, CLIP, read_camera, read_clip
from ss4d.pipelines.inspect.opened import OpenedRun, UnknownTypeError, open_run
from ss4d.pipelines.view.local_server import LOOPBACK, listen
from ss4d.pipelines.view.shapes import SHOWN, Cells, Shape, Shapes, Splats, Surface
from ss4d.stages.ops.geometry import FRONT_YAW, ORBIT_FOV, ORBIT_RADIUS, matrix_to_quaternion, orbit_camera
from ss4d.storage.errors import StoreError

LOOK_INTERVAL = 1.0  # seconds from one look at what is stored to the next
DEFAULT_FPS = 12.0  # until the clip is stored, which says it
PITCH = 15.0  # degrees above the horizon that it is seen from at first
GRID = "/grid"  # the node that turns everything upright
CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
CUBE_SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
CUBE_FACES = np.array([(a, *pair) for a, b, c, d in CUBE_SIDES for pair in ((b, c), (c, d))])


class LiveView:
    """A server of viser that shows a run; `serve` keeps it up to date.

    Args:
        run: the run's folder, or a packed run.
        store: see `open_run`.
        port: of this machine; 0 is any that is free.
        told: hears in a line what appears, or why something cannot be shown.

    Raises:
        ConfigError: the port is taken.
        StoreError: there is no such run.
    """

    def __init__(self, run: Path, store: str | None, port: int, told: Callable[[str], None]) -> None:
        open_run(run, store)  # before a server starts
        listen(port).close()  # viser would take the next port without a word
        self._run, self._store, self._told = run, store, told
        self._server = viser.ViserServer(host=LOOPBACK, port=port, label=f"SS4D: {run.name}")
        self._layers: dict[str, _Layer] = {}
        self._settled: set[str] = set()  # keys of results that are not looked at again, shown or not
        self._drawn: tuple[int, tuple[str, ...]] | None = None
        self._changed = threading.Event()  # something was clicked or moved
        gui = self._server.gui
        gui.configure_theme(show_share_button=False)  # which would hand all of it to a server of viser's makers
        self._frame = gui.add_slider("Frame", min=0, max=1, step=1, initial_value=0)
        self._playing = gui.add_checkbox("Play", initial_value=False)
        self._fps = gui.add_number("Frames a second", initial_value=DEFAULT_FPS, min=0.1, max=120)
        for control in (self._frame, self._playing):
            control.on_update(lambda _: self._changed.set())
        _aim(self._server)

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://{LOOPBACK}:{self._server.get_port()}/"

    @property
    def layers(self) -> Mapping[str, Shapes]:
        """What is there to be shown, by the stage that gave it."""
        return {name: layer.shapes for name, layer in self._layers.items()}

    @property
    def num_frames(self) -> int:
        """Of what is there to be shown; at least 1."""
        return max((layer.shapes.num_frames for layer in self._layers.values()), default=1)

    def serve(self) -> None:
        """Shows what there is, and what comes, until Ctrl-C."""
        looked = stepped = -math.inf
        try:
            while True:
                if time.monotonic() - looked >= LOOK_INTERVAL:
                    self.look()
                    looked = time.monotonic()
                pause = 1 / max(float(self._fps.value), 0.1)
                if self._playing.value and time.monotonic() - stepped >= pause:
                    stepped = time.monotonic()
                    self.show((int(self._frame.value) + 1) % self.num_frames)
                self.draw()
                self._changed.wait(pause if self._playing.value else LOOK_INTERVAL)
                self._changed.clear()
        except KeyboardInterrupt:
            return
        finally:
            self.close()

    def close(self) -> None:
        """Ends the server."""
        self._server.stop()

    def show(self, frame: int) -> None:
        """Goes to a frame."""
        self._frame.value = frame

    def look(self) -> None:
        """Makes a layer of each stage whose result is stored by now, and drops those that the run has no more."""
        run = open_run(self._run, self._store)
        keys = {name: run[name].record.key for name in run}
        for name in [name for name, layer in self._layers.items() if keys.get(name) != layer.key]:
            self._layers.pop(name).remove()
            self._drawn = None
        self._settled &= set(keys.values())
        for name, key in keys.items():
            if key not in self._settled and run[name].stored:
                self._settled.add(key)
                try:
                    self._take(run, name)
                except StoreError as error:
                    self._told(f"{name} cannot be shown: {error}")
        self._frame.max = max(self.num_frames - 1, 1)

    def draw(self) -> None:
        """Hands viser the frame that is asked for, in the layers that are asked for."""
        frame, wanted = int(self._frame.value), tuple(n for n, layer in self._layers.items() if layer.box.value)
        if self._drawn == (frame, wanted):
            return
        with self._server.atomic():
            for name, layer in self._layers.items():
                layer.draw(frame if name in wanted else None)
        self._drawn = (frame, wanted)

    def _take(self, run: OpenedRun, name: str) -> None:
        """Takes in what a stage has stored: a rate, a camera, or something to show."""
        if name == CLIP:
            self._fps.value = read_clip(run).fps
        if name in CAMERAS:
            camera = read_camera(run)
            turn = (1.0, 0.0, 0.0, 0.0) if camera is None else matrix_to_quaternion(camera.upright.double()).tolist()
            self._server.scene.add_frame(GRID, show_axes=False, wxyz=tuple(turn))
        try:
            make = SHOWN.get(run[name].value_type()) if run[name].arrays() else None
        except UnknownTypeError:
            return
        if make is None:
            return
        shapes = make(run[name].value())
        for layer in self._layers.values():
            layer.box.value = False  # what comes later stands for what came before
        box = self._server.gui.add_checkbox(name, initial_value=True)
        box.on_update(lambda _: self._changed.set())
        self._layers[name] = _Layer(self._server.scene, name, run[name].record.key, shapes, box)
        self._told(f"{name} is shown: {shapes.num_frames} frames")


class _Layer:
    """A stage's shapes as a node of viser's scene, and the box that shows or hides it."""

    def __init__(self, scene: Any, name: str, key: str, shapes: Shapes, box: Any) -> None:
        self._scene, self._node = scene, f"{GRID}/{name}"
        self.key, self.shapes, self.box = key, shapes, box
        self._shown: Any = None

    def draw(self, t: int | None) -> None:
        """Shows frame `t`, or the last one, in the place of what was shown before; nothing of None."""
        shape = None if t is None else self.shapes.at(min(t, self.shapes.num_frames - 1))
        before, self._shown = self._shown, None if shape is None else _add_shape(self._scene, self._node, shape)
        if before is not None and self._shown is None:
            before.remove()

    def remove(self) -> None:
        """Takes it out of the scene, and its box with it."""
        self.draw(None)
        self.box.remove()


def _add_shape(scene: Any, node: str, shape: Shape) -> Any:
    """The node's handle, which replaces a node of that name; None of a frame where there is nothing."""
    match shape:
        case Cells(centers, colors, side) if len(centers):
            turns, paint = np.tile([1.0, 0.0, 0.0, 0.0], (len(centers), 1)), (colors * 255).round().astype(np.uint8)
            cube = {"vertices": side * CUBE, "faces": CUBE_FACES, "flat_shading": True, "lod": "off"}
            return scene.add_batched_meshes_simple(
                node, **cube, batched_wxyzs=turns, batched_positions=centers, batched_colors=paint
            )
        case Splats(centers, covariances, colors, opacities) if len(centers):
            shown = {"rgbs": colors.clip(0, 1), "opacities": opacities[:, None]}
            return scene.add_gaussian_splats(node, centers, covariances, **shown)
        case Surface(vertices, faces, uv, texture) if len(faces):
            matter = PBRMaterial(baseColorTexture=Image.fromarray(texture), roughnessFactor=1.0, metallicFactor=0.0)
            visual = TextureVisuals(uv=uv * (1, -1) + (0, 1), material=matter)  # trimesh counts from the bottom
            return scene.add_mesh_trimesh(node, Trimesh(vertices, faces, visual=visual, process=False))
    return None


def _aim(server: viser.ViserServer) -> None:
    """Looks from the front, as a turntable begins."""
    forward = orbit_camera(FRONT_YAW, PITCH, size=1).world_to_camera[2][:3]
    server.scene.set_up_direction("+z")
    server.initial_camera.position = tuple(-ORBIT_RADIUS * along for along in forward)
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.initial_camera.fov = math.radians(ORBIT_FOV)
