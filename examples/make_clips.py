"""Draw the bundled example clips: a small bird that flaps its wings, a loop of 32 frames.

`python -m examples.make_clips [FOLDER]` writes `bird.mp4`, a plain video before a wall and a table, and
`bird_alpha.webm`, the bird alone with alpha. The bird is made of ellipsoids and cast ray by ray; nothing is random but
the wall's seeded grain.

World space: z up, the bird looks along -y, its left wing on +x. Images are (row, column, channel), colours 0 to 1.
"""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numba
import numpy as np
import torch
from numpy.typing import NDArray

from stages.ops.geometry import FRONT_YAW, orbit_camera
from stages.video_io import write_video

Array = NDArray[Any]  # float32 where there are many
Paint = Callable[[Array], Array]  # points on the unit sphere (n, 3) -> colours (n, 3)

NUM_FRAMES, FPS, SIZE, SUPERSAMPLING = 32, 24, 384, 2
YAW, PITCH = FRONT_YAW + 27, 14
FLAPS = 2  # wing beats in one loop

TEAL, BLUE, YELLOW = (0.05, 0.55, 0.60), (0.10, 0.27, 0.72), (1.00, 0.80, 0.14)
CREAM, ORANGE, RED = (1.00, 0.93, 0.78), (1.00, 0.50, 0.08), (0.86, 0.16, 0.17)
BLACK, WHITE, ROSE = (0.04, 0.04, 0.06), (1.0, 1.0, 1.0), (1.0, 0.52, 0.47)


@dataclass(frozen=True)
class Pose:
    """A frame of reference: point in the parent = rotation @ point + origin."""

    rotation: NDArray[np.float64]
    origin: NDArray[np.float64]

    def at(self, x: float, y: float, z: float, *turns: NDArray[np.float64]) -> "Pose":
        """A child frame at (x, y, z), turned by `turns`, the last one first."""
        turn = np.linalg.multi_dot([np.eye(3), *turns, np.eye(3)])
        return Pose(self.rotation @ turn, self.rotation @ np.array([x, y, z]) + self.origin)

    def mirrored(self) -> "Pose":
        """The same frame on the other side of the plane x = 0 of the world."""
        flip = np.diag([-1.0, 1.0, 1.0])
        return Pose(flip @ self.rotation, flip @ self.origin)


@dataclass(frozen=True)
class Ellipsoid:
    """One part of the bird, with its half axes along its pose's axes."""

    pose: Pose
    radii: tuple[float, float, float]
    paint: Paint

    def to_unit_sphere(self, points: Array) -> Array:
        """World points in the frame in which this is the unit sphere."""
        local: Array = ((points - self.pose.origin) @ self.pose.rotation / np.array(self.radii)).astype(np.float32)
        return local


def turn(axis: int, degrees: float) -> NDArray[np.float64]:
    """Rotation about one axis (0 x, 1 y, 2 z)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = c, -s, s, c
    return rotation


# --- the bird -------------------------------------------------------------------------------------------------------


def plain(color: tuple[float, float, float]) -> Paint:
    """The same colour everywhere."""
    return lambda p: np.broadcast_to(np.array(color, np.float32), p.shape)


def patch(mask: Callable[[Array], Array], inside: Paint, outside: Paint) -> Paint:
    """`inside` where the mask is positive, with a soft edge."""

    def paint(p: Array) -> Array:
        amount = np.clip(mask(p) / 0.06 + 0.5, 0, 1)[:, None]
        return inside(p) * amount + outside(p) * (1 - amount)

    return paint


def body_paint() -> Paint:
    """Teal with a cream belly and rows of darker feathers on the back."""
    feathers = patch(
        lambda p: np.sin(9 * np.arctan2(p[:, 0], p[:, 1])) * np.sin(11 * p[:, 2]) - 0.45,
        plain((0.02, 0.42, 0.52)),
        plain(TEAL),
    )
    return patch(lambda p: -p[:, 1] * 0.9 - 0.5 * p[:, 2] - 0.42 - 0.35 * p[:, 0] ** 2, plain(CREAM), feathers)


def wing_paint() -> Paint:
    """Bands from the shoulder (x = -1) to the tip (x = 1), wavy as rows of feathers are."""

    def wave(p: Array) -> Array:
        drawn: Array = p[:, 0] + 0.07 * np.sin(14 * p[:, 1])
        return drawn

    outer = patch(lambda p: wave(p) - 0.42, plain(RED), plain(YELLOW))
    return patch(lambda p: wave(p) - 0.05, outer, plain(BLUE))


def bird(phase: float) -> list[Ellipsoid]:
    """The bird at a phase of its loop, 0 to 1."""
    beat, slow = 2 * math.pi * FLAPS * phase, 2 * math.pi * phase
    root = Pose(np.eye(3), np.array([0.06, 0, -0.03 - 0.035 * math.sin(beat + 0.5)])).at(
        0, 0, 0, turn(1, 5 * math.sin(slow)), turn(0, 4 * math.sin(beat))
    )
    parts = [Ellipsoid(root.at(0, 0.02, -0.06, turn(0, -18)), (0.205, 0.225, 0.25), body_paint())]
    parts += head(root.at(0, -0.09, 0.17, turn(2, 14 * math.sin(slow + 1)), turn(1, 8 * math.sin(slow))), beat)
    flap, lag = 18 + 42 * math.sin(beat), 18 + 42 * math.sin(beat - 0.9)
    for mirror in (False, True):
        parts += wing(root, flap, lag, mirror)
    for side, color in ((0, RED), (-1, BLUE), (1, YELLOW)):
        feather = root.at(0, 0.2, -0.13, turn(2, 6 * math.sin(slow)), turn(0, 16 + 7 * math.sin(beat + 1)))
        feather = feather.at(0, 0, -0.012 * abs(side), turn(2, -26 * side))
        parts.append(Ellipsoid(feather.at(0, 0.11, 0), (0.05, 0.15, 0.022), plain(color)))
    for side in (-1, 1):
        parts += foot(root.at(0.085 * side, -0.02, -0.28, turn(0, 14 * math.sin(beat + 0.8 * side))))
    return parts


def head(pose: Pose, beat: float) -> list[Ellipsoid]:
    """Head with face, eyes, a beak that opens a little, and a crest."""
    face = patch(lambda p: -p[:, 1] - 0.52 - 0.5 * np.abs(p[:, 2] + 0.1), plain(CREAM), plain(TEAL))
    parts = [Ellipsoid(pose, (0.17, 0.165, 0.16), face)]
    gape = 7 + 7 * math.sin(beat)
    parts.append(Ellipsoid(pose.at(0, -0.19, -0.005, turn(0, gape / 2)), (0.05, 0.085, 0.034), plain(ORANGE)))
    parts.append(Ellipsoid(pose.at(0, -0.172, -0.038, turn(0, -gape)), (0.04, 0.062, 0.022), plain((0.90, 0.36, 0.05))))
    for side in (-1, 1):
        parts.append(Ellipsoid(pose.at(0.078 * side, -0.128, 0.045), (0.036, 0.03, 0.042), plain(BLACK)))
        parts.append(Ellipsoid(pose.at(0.072 * side, -0.156, 0.062), (0.011, 0.009, 0.012), plain(WHITE)))
        parts.append(Ellipsoid(pose.at(0.098 * side, -0.118, -0.03), (0.034, 0.026, 0.026), plain(ROSE)))
    for index, color in enumerate((YELLOW, ORANGE, RED)):
        lean = -24 + 26 * index - 8 * math.sin(beat + 0.5 * index)
        plume = pose.at(0, -0.045 + 0.045 * index, 0.13, turn(0, -lean))
        parts.append(Ellipsoid(plume.at(0, 0, 0.055), (0.02, 0.026, 0.075 - 0.008 * index), plain(color)))
    return parts


def wing(root: Pose, flap: float, lag: float, mirror: bool) -> list[Ellipsoid]:
    """A wing of two joints, the outer following the inner with a delay; built on the left, mirrored to the right."""
    shoulder = Pose(np.eye(3), np.zeros(3)).at(0.15, 0.04, 0.03, turn(1, -flap), turn(2, 12), turn(0, 32))
    wrist = shoulder.at(0.2, 0.015, 0, turn(1, -(lag - flap) * 0.7), turn(2, 14))
    whole = wing_paint()
    joints: tuple[tuple[Pose, tuple[float, float, float], Paint], ...] = (
        (shoulder.at(0.11, 0.03, 0), (0.16, 0.14, 0.034), lambda p: whole(p * (0.55, 1, 1) - (0.45, 0, 0))),
        (wrist.at(0.07, 0.02, 0), (0.13, 0.115, 0.028), lambda p: whole(p * (0.6, 1, 1) + (0.4, 0, 0))),
    )
    placed = []
    for pose, radii, paint in joints:
        side = pose.mirrored() if mirror else pose
        whole_pose = Pose(root.rotation @ side.rotation, root.rotation @ side.origin + root.origin)
        placed.append(Ellipsoid(whole_pose, radii, paint))
    return placed


def foot(pose: Pose) -> list[Ellipsoid]:
    """A leg with three toes."""
    parts = [Ellipsoid(pose, (0.02, 0.02, 0.06), plain(ORANGE))]
    for spread in (-28, 0, 28):
        toe = pose.at(0, -0.01, -0.055, turn(2, spread)).at(0, -0.045, 0)
        parts.append(Ellipsoid(toe, (0.019, 0.055, 0.017), plain(ORANGE)))
    return parts


# --- casting rays ---------------------------------------------------------------------------------------------------

LIGHT = np.array([-0.45, -0.62, 0.75]) / np.linalg.norm([-0.45, -0.62, 0.75])


def nearest_hit(parts: list[Ellipsoid], origins: Array, directions: Array) -> tuple[Array, NDArray[np.int64]]:
    """Distance to the first part along each ray, infinite where there is none, and which part it is."""
    to_unit = np.array([part.pose.rotation / np.array(part.radii) for part in parts], np.float32)
    centers = np.array([part.pose.origin for part in parts], np.float32)
    distance, which = np.empty(len(directions), np.float32), np.empty(len(directions), np.int64)
    _cast(to_unit, centers, np.ascontiguousarray(origins), np.ascontiguousarray(directions), distance, which)
    return distance, which


@numba.njit(cache=True)
def _cast(to_unit, centers, origins, directions, distance, which):  # type: ignore[no-untyped-def]
    o, d = np.empty(3, np.float32), np.empty(3, np.float32)
    for ray in range(len(directions)):
        distance[ray], which[ray] = np.inf, 0
        for part in range(len(centers)):
            for k in range(3):
                o[k], d[k] = np.float32(0), np.float32(0)
                for j in range(3):
                    o[k] += (origins[ray, j] - centers[part, j]) * to_unit[part, j, k]
                    d[k] += directions[ray, j] * to_unit[part, j, k]
            a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
            b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
            root = b * b - a * (o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - np.float32(1))
            if root > 0:
                t = (-b - math.sqrt(root)) / a
                if np.float32(1e-4) < t < distance[ray]:
                    distance[ray], which[ray] = t, part


def shade(parts: list[Ellipsoid], points: Array, which: NDArray[np.int64], eye: NDArray[np.float64]) -> Array:
    """Colours of points on the bird: a key light with its shadow, light from the sky and the ground, a faint gloss."""
    colors, normals = np.empty_like(points), np.empty_like(points)
    for index, part in enumerate(parts):
        mine = which == index
        local = part.to_unit_sphere(points[mine])
        colors[mine] = part.paint(local)
        normals[mine] = (local / np.array(part.radii)) @ part.pose.rotation.T
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    starts = (points + 0.004 * normals).astype(np.float32)
    shadowed = np.isfinite(nearest_hit(parts, starts, np.broadcast_to(np.float32(LIGHT), points.shape))[0])
    key = np.clip(normals @ LIGHT * 0.85 + 0.15, 0, None) * np.where(shadowed, 0.35, 1)
    sky = 0.5 + 0.5 * normals[:, 2]
    toward_eye = (eye - points) / np.linalg.norm(eye - points, axis=-1, keepdims=True)
    half = toward_eye + LIGHT
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    gloss = np.clip((normals * half).sum(-1), 0, None) ** 40 * np.where(shadowed, 0, 0.12)
    lit = colors * (0.72 * key + 0.22 + 0.26 * sky)[:, None] + gloss[:, None]
    drawn: Array = np.clip(lit, 0, 1).astype(np.float32)
    return drawn


def draw_bird(frame: int) -> Array:
    """One frame (size, size, 4): straight colour and alpha."""
    parts = bird(frame / NUM_FRAMES)
    camera = orbit_camera(YAW, PITCH, size=SIZE * SUPERSAMPLING, radius=2.0, fov=32)
    view = np.array(camera.world_to_camera)
    eye = -view[:3, :3].T @ view[:3, 3]
    steps = (np.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal
    across, down = np.meshgrid(steps, steps)
    rays = np.stack((across, down, np.ones_like(across)), axis=-1).reshape(-1, 3) @ view[:3, :3]
    rays = rays.astype(np.float32)
    distance, which = nearest_hit(parts, np.broadcast_to(np.float32(eye), rays.shape), rays)
    hit = np.isfinite(distance)
    points = (eye + distance[hit, None] * rays[hit]).astype(np.float32)
    image = np.zeros((len(rays), 4), np.float32)
    image[hit, :3] = shade(parts, points, which[hit], eye)
    image[hit, 3] = 1
    image = image.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 4).mean(axis=(1, 3))
    image[..., :3] /= np.maximum(image[..., 3:], 1e-6)
    drawn: Array = image
    return drawn


# --- the scene behind it --------------------------------------------------------------------------------------------


def draw_background() -> Array:
    """A dotted wall above a wooden table, both with grain: (size, size, 3)."""
    grain = np.random.default_rng(7).standard_normal((3, SIZE, SIZE)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    wall = np.array((0.66, 0.62, 0.68), np.float32) * (1.04 - 0.25 * ((x - 0.4) ** 2 + (y - 0.3) ** 2))[..., None]
    cell_x, cell_y = (x * 9 + 0.5 * (np.floor(y * 9) % 2)) % 1 - 0.5, (y * 9) % 1 - 0.5
    dots = np.clip((0.17 - np.hypot(cell_x, cell_y)) * 16, 0, 1)[..., None]
    wall = wall * (1 - 0.5 * dots) + 0.5 * dots * np.array((0.80, 0.74, 0.72), np.float32)
    wall += 0.3 * cv2.GaussianBlur(grain[0], (0, 0), 6)[..., None]
    wall += 0.012 * cv2.GaussianBlur(grain[1], (0, 0), 0.8)[..., None]
    depth = np.clip((y - 0.8) / 0.2, 0, 1)
    rings = np.sin(60 * (y - 0.8) / (0.4 + depth) + 50 * cv2.GaussianBlur(grain[2], (0, 0), sigmaX=30, sigmaY=4))
    wood = np.array((0.50, 0.35, 0.24), np.float32) * (1 + 0.10 * rings + 0.18 * depth)[..., None]
    edge = np.clip((y - 0.8) * SIZE / 1.5 + 0.5, 0, 1)[..., None]
    drawn: Array = np.clip(wall * (1 - edge) + wood * edge, 0, 1)
    return drawn


def with_shadow(background: Array, bird_frame: Array) -> Array:
    """The background with the bird's soft shadow on the table."""
    columns = bird_frame[..., 3].max(axis=0)
    center = float((columns * np.arange(SIZE)).sum() / columns.sum()) / SIZE
    height = float(np.flatnonzero(bird_frame[..., 3].max(axis=1)).max()) / SIZE
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    spread = 1.25 - 0.5 * height
    falloff = ((x - center - 0.03) / (0.17 * spread)) ** 2 + ((y - 0.91) / (0.035 * spread)) ** 2
    darkness = 0.45 * np.exp(-falloff)
    drawn: Array = background * (1 - np.where(y > 0.8, darkness, 0))[..., None]
    return drawn


# --- files ----------------------------------------------------------------------------------------------------------


def to_bytes(image: Array) -> NDArray[np.uint8]:
    """Colours 0 to 1 as 0 to 255."""
    return np.round(image * 255).astype(np.uint8)


def draw_frame(frame: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One frame of both clips: RGB before the background, and RGBA."""
    image = draw_bird(frame)
    alpha = image[..., 3:]
    scene = image[..., :3] * alpha + with_shadow(draw_background(), image) * (1 - alpha)
    return to_bytes(scene), to_bytes(image)


def write_with_alpha(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    """Write RGBA frames as VP9 with an alpha layer, which browsers play too."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(FPS), options={"crf": "24", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuva420p"
        for image in frames:
            picture = av.VideoFrame.from_ndarray(image, format="rgba")
            container.mux(stream.encode(picture.reformat(format="yuva420p")))
        container.mux(stream.encode())


def main(folder: Path) -> None:
    """Write both clips."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes, birds = zip(*(draw_frame(frame) for frame in range(NUM_FRAMES)), strict=True)
    write_video(folder / "bird.mp4", (torch.from_numpy(scene) for scene in scenes), FPS)
    write_with_alpha(folder / "bird_alpha.webm", birds)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "clips")
