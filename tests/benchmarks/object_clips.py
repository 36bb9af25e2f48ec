"""Clips whose masks are known: objects before still, moving and textured backgrounds, to measure segmentation with.

Images are (y, x, channel), frames (t, y, x, channel). Everything follows from its seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ss4d.stages.data.clip import HELD_OUT_SEED, SOURCE_SIZE, input_camera, random_light
from ss4d.stages.data.gltf import load_animated
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import FPS, make_object, stream
from ss4d.stages.data.render import Window, render
from ss4d.stages.input_files import InputConfig
from ss4d.stages.video_io import read_video

SIZE = 384  # pixels: side of the frames
BACKGROUNDS = ("still", "moving", "textured")
PAN = 3.0  # pixels a frame that a moving background moves by
NOISE = 2.0  # levels, as of a camera
FAMILIES = ("bird", "butterfly", "fish", "quadruped", "spinner", "walker", "flower", "vehicle")
ASSETS = 10  # files of a folder, evenly over their names

Colors = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ObjectClip:
    """A clip with its masks.

    Attributes:
        background: what is behind the object.
        frames: (t, h, w, 3).
        truth: (t, h, w), true on the object.
    """

    name: str
    background: str
    frames: Colors
    truth: NDArray[np.bool_]


def object_clips(count: int, assets: Path | None, folders: Path | None) -> Iterator[ObjectClip]:
    """A clip for each object, of `count` frames; backgrounds take turns.

    Args:
        count: frames of each.
        assets: a folder of GLB files, of which `ASSETS` are used at most; None: without.
        folders: a folder of folders of images with alpha; None: without.
    """
    for index, (name, object_frames) in enumerate(_objects(count, assets, folders)):
        background = BACKGROUNDS[index % len(BACKGROUNDS)]
        rng = stream(index, background)
        behind = BEHIND[background](rng, count)
        alpha = object_frames[..., 3:].astype(np.float32) / 255
        shown = object_frames[..., :3] * alpha + 255 * behind * (1 - alpha)
        noisy = shown + NOISE * rng.standard_normal(shown.shape)
        yield ObjectClip(name, background, np.rint(noisy.clip(0, 255)).astype(np.uint8), alpha[..., 0] > 0.5)


def _objects(count: int, assets: Path | None, folders: Path | None) -> Iterator[tuple[str, Colors]]:
    for number, family in enumerate(FAMILIES):
        seed = HELD_OUT_SEED + 9000 + number
        yield family, _filmed(make_object(family, seed, count), seed)
    files = sorted(assets.glob("*.glb")) if assets is not None else []
    for number, file in enumerate(files[:: max(1, -(-len(files) // ASSETS))]):
        yield file.stem, _filmed(load_animated(file, count, FPS), HELD_OUT_SEED + 9500 + number)
    for folder in sorted(folders.iterdir()) if folders is not None else ():
        yield folder.name, _fitted(read_video(folder, InputConfig(frames=count)).frames.numpy())


def _filmed(mesh: AnimatedMesh, seed: int) -> Colors:
    """An object seen by an input camera (t, SIZE, SIZE, 4)."""
    rng = stream(seed, "film")
    yaw, camera = input_camera(rng, mesh)
    light, window = random_light(rng, mesh.num_frames, yaw), Window(0, 0, SOURCE_SIZE, SIZE)
    drawn: Colors = render(mesh, [camera], light, window=window)[0]
    return drawn


def _fitted(frames: Colors) -> Colors:
    return np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])


def _room(rng: Generator, side: int) -> Floats:
    """A wall above a floor, both uneven, with some soft things before them: (side, side, 3), 0 to 1."""
    y = np.mgrid[:side, :side][0].astype(np.float32) / side
    wall, floor = (rng.uniform(0.25, 0.85, 3).astype(np.float32) for _ in range(2))
    line = rng.uniform(0.6, 0.85)
    image = np.where((y < line)[..., None], wall, floor) * (1.1 - 0.3 * y[..., None])
    for _ in range(6):
        blob = np.zeros((side, side), np.float32)
        center = tuple(int(v) for v in rng.integers(0, side, 2))
        axes = tuple(int(v) for v in rng.integers(side // 16, side // 5, 2))
        cv2.ellipse(blob, center, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        share = 0.5 * cv2.GaussianBlur(blob, (0, 0), side / 40)[..., None]
        image = image * (1 - share) + share * rng.uniform(0.1, 0.9, 3).astype(np.float32)
    grain = rng.standard_normal((2, side, side)).astype(np.float32)
    image += 0.25 * cv2.GaussianBlur(grain[0], (0, 0), 5)[..., None]
    image += 0.02 * cv2.GaussianBlur(grain[1], (0, 0), 0.8)[..., None]
    return np.asarray(image.clip(0, 1), np.float32)


def _still(rng: Generator, count: int) -> Floats:
    return np.broadcast_to(_room(rng, SIZE), (count, SIZE, SIZE, 3))


def _moving(rng: Generator, count: int) -> Floats:
    """The room, seen by a camera that pans."""
    room = _room(rng, SIZE + int(np.ceil(PAN * count)))
    return np.stack([room[offset : offset + SIZE, offset : offset + SIZE] for offset in _offsets(count)])


def _offsets(count: int) -> Sequence[int]:
    return [round(PAN * t) for t in range(count)]


def _textured(rng: Generator, count: int) -> Floats:
    """A pattern of small patches of many colors, with sharp edges."""
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    colors = rng.uniform(0.1, 0.9, (5, 3))
    for _ in range(900):
        center = rng.integers(0, SIZE, 2)
        corners = center + rng.integers(-SIZE // 24, SIZE // 24, (4, 2))
        cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), colors[rng.integers(len(colors))].tolist())
    return np.broadcast_to(cv2.GaussianBlur(image, (0, 0), 0.7), (count, SIZE, SIZE, 3))


BEHIND = {"still": _still, "moving": _moving, "textured": _textured}
