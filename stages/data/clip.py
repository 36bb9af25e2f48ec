"""Makes training clips: an object seen by one input camera and by others all round it, with its surface voxels.

Axes: t frame, v view, s pixel along the input's side, p pixel along a view's side, n voxel; world space is z up.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from ss4d.stages.data.axes import placement
from ss4d.stages.data.hulls import outside
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import FPS, family_of, make_object, stream
from ss4d.stages.data.render import Light, Window, render
from ss4d.stages.data.voxels import surface_voxels, visible
from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import CROP_MARGIN, FRONT_YAW, orbit_camera
from ss4d.stages.types import Axes, Camera, Value, array

REVISION = 2  # raised whenever a spec gives another clip than before, so that stored ones are made anew
HELD_OUT_SEED = 2**31  # seeds from here on are for evaluation: nothing may train on their clips
OPAQUE = 0.9  # opacity from which on a surface hides the voxels behind it
SOURCE_SIZE = 512  # side of the imagined video frame that the input is cropped from
STRAIGHT = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))  # a camera that looks along the grid's depth, level
SAME_DIRECTION = 1e-5  # of its elements, by rounding; a crop a pixel beside the middle turns by a hundred times more
SAME_WIDTH = 1e-5  # by which the crop may seem to be wider than the cube, by rounding
FRAMING = 0.85  # of that frame's half side that the object reaches at some time
INPUT_YAW, INPUT_PITCH, INPUT_FOV = (-45.0, 45.0), (-10.0, 35.0), (25.0, 50.0)
VIEW_PITCH = (-20.0, 60.0)
# What other views are lit by, the same in every clip: soft enough to keep the colors, and uneven enough to show the
# shape. It stands still in the world and has no highlight, so a point looks alike from every side: colors of Gaussians
# that do not depend on the view can be exactly right.
SOFT = Light(
    np.array([[0.33, -0.62, 0.71]], np.float32),
    color=(0.38, 0.38, 0.38),
    sky=(0.74, 0.74, 0.74),
    ground=(0.5, 0.5, 0.5),
)


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What clip to make.

    Attributes:
        seed: from 0; decides the object, the cameras and the light.
        family: a family of objects, or None to let the seed choose.
        num_frames: at least 1, at 12 frames a second.
        span: frames, at the same rate, over which the object moves, of which `num_frames` are shown, at random times:
            the crop and the grid leave room for all it does, as in a longer clip. None for no more than are shown.
        input_size: side of the input frames in pixels.
        num_views: other cameras, at least 1.
        view_size: side of the other views in pixels.
        resolution: grid cells along each axis.
        axes: of the grid.
    """

    seed: int
    family: str | None = None
    num_frames: int = 16
    input_size: int = 128
    num_views: int = 8
    view_size: int = 128
    resolution: int = 32
    axes: Axes = "world"
    span: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("seed", 0),
            ("num_frames", 1),
            ("input_size", 8),
            ("num_views", 1),
            ("view_size", 8),
            ("resolution", 2),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}; got {getattr(self, name)}.")
        if self.span is not None and self.span < self.num_frames:
            raise InputError(f"span must be at least num_frames, {self.num_frames}; got {self.span}.")

    def decides(self) -> dict[str, Any]:
        """What keys of clips are made of; what came later counts where it is used, so that earlier clips stay."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("span", None)}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingClip(Value):
    """One clip with its ground truth.

    Attributes:
        family: what the object is.
        seed: what it was made from.
        yaw: degrees of the input camera from the object's front, toward +y turning to +x.
        fps: frames a second.
        resolution: grid cells along each axis.
    """

    frames: Tensor = array("t s s 4", torch.uint8, "input view, straight RGBA, cropped as the model's inputs are")
    crop: Tensor = array("4", torch.int64, "left, top, right, bottom of the crop in the input camera's pixels")
    input_camera: Tensor = array("4 4", torch.float32, "world to camera of the input view before the crop")
    input_focal: Tensor = array("", torch.float32, "focal length of the input view before the crop, in pixels")
    views: Tensor = array("v t p p 4", torch.uint8, "other views under soft light, straight RGBA")
    view_cameras: Tensor = array("v 4 4", torch.float32, "world to camera of each view")
    view_focals: Tensor = array("v", torch.float32, "focal length of each view in pixels")
    coords: Tensor = array(
        "n 5", torch.int32, "cells of the surface that show from outside (b, t, x, y, z), sorted; b is 0"
    )
    feats: Tensor = array("n 9", torch.float32, "mean color, mean normal, mean offset from the cell's center in cells")
    upright: Tensor = array("3 3", torch.float32, "directions in the grid to directions in the world, where z is up")
    family: str
    seed: int
    yaw: float
    fps: float
    resolution: int

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def axes(self) -> Axes:
        """Of the grid."""
        if torch.equal(self.upright, torch.eye(3)):
            return "world"
        if self.upright[2].tolist() == [0, 0, 1]:
            return "yaw"
        left, top, right, bottom = self.crop.tolist()
        if (left + right, top + bottom) != (SOURCE_SIZE, SOURCE_SIZE):
            # A crop beside the picture's middle turns its grid. Where middles show does not tell: they may agree.
            straight = (self.input_camera[:3, :3] - torch.tensor(STRAIGHT)).abs().max() < SAME_DIRECTION
            return "camera" if straight else "crop"
        # A side of its cube is as wide as the crop. One that is not, as the object is too deep, is the camera's, too.
        wide = float(self.input_camera[2, 3]) * (right - left) / float(self.input_focal)
        return "crop" if abs(wide - 1) < SAME_WIDTH else "camera"

    def view_camera(self, index: int) -> Camera:
        """One of the other views' cameras."""
        size = self.views.shape[2]
        rows = tuple(tuple(row) for row in self.view_cameras[index].tolist())
        return Camera(world_to_camera=rows, focal=float(self.view_focals[index]), width=size, height=size)


def make_clip(spec: ClipSpec) -> TrainingClip:
    """The clip that `spec` describes, the same on every call.

    Raises:
        InputError: for an unknown family.
    """
    family = spec.family or family_of(spec.seed)
    return film(make_object(family, spec.seed, spec.span or spec.num_frames), spec, family, FPS)


def film(mesh: AnimatedMesh, spec: ClipSpec, family: str, fps: float) -> TrainingClip:
    """A clip of a given object, such as an imported one; cameras and light come from `spec.seed`."""
    rng = stream(spec.seed, "film")
    yaw, camera = input_camera(rng, mesh)
    window = crop_window(mesh, camera, spec.input_size)
    place = placement(spec.axes, mesh, camera, window)
    if spec.span is not None:
        chosen = stream(spec.seed, "shown").choice(mesh.num_frames, spec.num_frames, replace=False)
        mesh = mesh.at(np.sort(chosen))
    frames = render(mesh, [camera], random_light(rng, mesh.num_frames, yaw), window=window)[0]
    cameras = view_cameras(rng, spec.num_views, spec.view_size)
    coords, feats = surface_voxels(place.place(outside(mesh.solid())), spec.resolution)
    blocking = None
    if mesh.opacity is not None:  # what stands behind glass is seen
        blocking, _ = surface_voxels(place.place(outside(mesh.solid(OPAQUE))), spec.resolution)
    kept = visible(coords, spec.resolution, blocking)
    edges = (window.left, window.top, window.left + window.side, window.top + window.side)
    return TrainingClip(
        frames=torch.from_numpy(frames),
        crop=torch.tensor(edges, dtype=torch.int64),
        input_camera=torch.tensor(place.see(camera).world_to_camera),
        input_focal=torch.tensor(camera.focal),
        views=torch.from_numpy(render(mesh, cameras, SOFT)),
        view_cameras=torch.tensor([place.see(view).world_to_camera for view in cameras]),
        view_focals=torch.tensor([view.focal for view in cameras]),
        coords=torch.from_numpy(coords[kept]),
        feats=torch.from_numpy(feats[kept]),
        upright=torch.from_numpy(place.rotation.T.astype(np.float32)),
        family=family,
        seed=spec.seed,
        yaw=yaw,
        fps=fps,
        resolution=spec.resolution,
    )


def input_camera(rng: Generator, mesh: AnimatedMesh) -> tuple[float, Camera]:
    """A camera about the front that just frames the whole clip, and its yaw from the front in degrees."""
    yaw, pitch, fov = (float(rng.uniform(*limits)) for limits in (INPUT_YAW, INPUT_PITCH, INPUT_FOV))
    near = orbit_camera(FRONT_YAW + yaw, pitch, size=SOURCE_SIZE, radius=0.0, fov=fov)
    points = mesh.vertices.reshape(-1, 3) @ np.array(near.world_to_camera, np.float32)[:3, :3].T
    # At distance d a point shows at focal x / (d + z): the least d at which all stay inside the frame.
    slope = FRAMING * math.tan(math.radians(fov) / 2)
    distance = float((np.abs(points[:, :2]).max(1) / slope - points[:, 2]).max())
    return yaw, orbit_camera(FRONT_YAW + yaw, pitch, size=SOURCE_SIZE, radius=distance, fov=fov)


def crop_window(mesh: AnimatedMesh, camera: Camera, size: int) -> Window:
    """The model's one square crop for the clip (docs/model.md, section 2), from the vertices instead of the pixels."""
    view = np.array(camera.world_to_camera, np.float32)
    points = mesh.vertices.reshape(-1, 3) @ view[:3, :3].T + view[:3, 3]
    pixels = points[:, :2] / points[:, 2:] * camera.focal + (camera.width / 2, camera.height / 2)
    low, high = np.floor(pixels.min(0)), np.floor(pixels.max(0))  # the first and the last pixel it touches
    half = CROP_MARGIN * float((high - low).max()) / 2
    left, top = (int(edge) for edge in (low + high) / 2 - half)
    right = int((low[0] + high[0]) / 2 + half)
    return Window(left, top, right - left, size)


def view_cameras(rng: Generator, count: int, size: int) -> list[Camera]:
    """Cameras of docs/model.md, section 9 spread evenly all round, at random pitch."""
    start = rng.uniform(0, 360)
    yaws = start + 360 * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    pitches = rng.permutation(
        VIEW_PITCH[0] + (VIEW_PITCH[1] - VIEW_PITCH[0]) * (np.arange(count) + rng.random(count)) / count
    )
    return [orbit_camera(float(yaw), float(pitch), size=size) for yaw, pitch in zip(yaws, pitches, strict=True)]


def lit(feats: Tensor, upright: Tensor) -> Tensor:
    """Colors (n, 3) that voxels with features (n, 9) show under the light of the views, `SOFT`.

    `upright` (3, 3) or (n, 3, 3) turns the grid's directions to the world's, where the light stands still.
    """
    normals = (upright.expand(len(feats), 3, 3) @ feats[:, 3:6, None])[..., 0]
    up = (0.5 + 0.5 * normals[:, 2:]).clamp(0, 1)
    sky, ground, lamp = (feats.new_tensor(color) for color in (SOFT.sky, SOFT.ground, SOFT.color))
    facing_lamp = (normals @ feats.new_tensor(SOFT.direction[0])).clamp(min=0)[:, None]
    colors: Tensor = feats[:, :3] * (ground + up * (sky - ground) + facing_lamp * lamp)
    return colors.clamp(0, 1)


def random_light(rng: Generator, num_frames: int, yaw: float) -> Light:
    """A lamp on the camera's side that drifts during the clip, tinted, in front of some ambient light."""
    drift = rng.uniform(-40, 40) * np.linspace(0, 1, num_frames) * (rng.random() < 0.5)
    around = np.radians(FRONT_YAW + yaw + rng.uniform(-80, 80) + drift)
    above = np.radians(rng.uniform(0, 75))
    direction = np.stack(
        (np.sin(around) * np.cos(above), np.cos(around) * np.cos(above), np.full(num_frames, np.sin(above))), -1
    )
    strength, ambient = rng.uniform(0.3, 0.75), rng.uniform(0.42, 0.72)
    tint, mood = 1 + rng.uniform(-0.12, 0.12, 3), 1 + rng.uniform(-0.08, 0.08, 3)
    red, green, blue = (float(value) for value in strength * tint)
    sky, ground = ambient * mood, ambient * mood * rng.uniform(0.6, 1.0)
    return Light(
        direction.astype(np.float32),
        color=(red, green, blue),
        sky=(float(sky[0]), float(sky[1]), float(sky[2])),
        ground=(float(ground[0]), float(ground[1]), float(ground[2])),
        specular=float(rng.choice([0.0, rng.uniform(0.05, 0.35)])),
        shininess=float(rng.uniform(8, 50)),
    )
