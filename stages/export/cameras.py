"""The cameras of the turntable and of the input as JSON, in world space (z up); the file states its own conventions."""

import json
from dataclasses import replace
from pathlib import Path

from ss4d.stages.export.scene import PLY_FROM_WORLD
from ss4d.stages.export.turntable import Shot, Turntable
from ss4d.stages.input_camera import view_of
from ss4d.stages.ops.geometry import FRONT_YAW, ORBIT_FOV, ORBIT_RADIUS, quaternion_to_matrix
from ss4d.stages.types import InputCamera

CONVENTION = {
    "world": "right-handed, z up, the object within [-0.5, 0.5]^3, its front facing -y",
    "camera": "x right, y down, z forward; pixel centers at half integers, the first at (0.5, 0.5)",
    "position": "radius * (sin yaw cos pitch, cos yaw cos pitch, sin pitch), looking at the origin",
    "world_to_camera": "camera point = world_to_camera @ (x, y, z, 1) of a world point",
    "intrinsics": "pixel = (fx x / z + cx, fy y / z + cy) of a camera point",
    "ply": "point in a PLY file = ply_from_world @ world point (y down, as viewers of 3D Gaussian Splatting expect)",
    "units": "yaw, pitch and fov in degrees; radius in world units; fx, fy, cx, cy, width and height in pixels",
    "frame": "index of the clip's frame that is shown, from 0; frame 0 is frames/frame0001.ply",
}

INPUT_CONVENTION = "the camera that saw the clip's crop; its width, height and intrinsics count the crop's side as 1"


def write_cameras(path: Path, turntable: Turntable, camera: InputCamera | None = None) -> None:
    """Writes one entry for each picture of the turntable, in the video's order, and one of the input's camera."""
    path.write_text(json.dumps(camera_document(turntable, camera), indent=1) + "\n", encoding="utf-8")


def camera_document(turntable: Turntable, camera: InputCamera | None) -> dict[str, object]:
    """What `cameras.json` holds."""
    return {
        "convention": CONVENTION if camera is None else {**CONVENTION, "input": INPUT_CONVENTION},
        "ply_from_world": quaternion_to_matrix(PLY_FROM_WORLD).round(decimals=12).tolist(),
        "fps": turntable.fps,
        **({} if camera is None else {"input": _input(camera)}),
        "cameras": [_entry(shot) for shot in turntable.shots],
    }


def _input(camera: InputCamera) -> dict[str, object]:
    """The input's camera without the shear of `in_world`: its principal point lies where it does."""
    view = view_of(camera)
    x, y = view.shift
    rigid = replace(view, shift=(0.0, 0.0)).camera(1)
    return {
        "yaw": FRONT_YAW + view.yaw,
        "pitch": view.pitch,
        "radius": view.distance,
        "fov": float(camera.fov),
        "width": 1,
        "height": 1,
        "intrinsics": {"fx": view.focal, "fy": view.focal, "cx": 0.5 + x, "cy": 0.5 + y},
        "world_to_camera": rigid.world_to_camera,
    }


def _entry(shot: Shot) -> dict[str, object]:
    camera = shot.camera
    return {
        "frame": shot.frame,
        "yaw": shot.yaw,
        "pitch": shot.pitch,
        "radius": ORBIT_RADIUS,
        "fov": ORBIT_FOV,
        "width": camera.width,
        "height": camera.height,
        "intrinsics": {"fx": camera.focal, "fy": camera.focal, "cx": camera.width / 2, "cy": camera.height / 2},
        "world_to_camera": camera.world_to_camera,
    }
