"""Imports an asset that ss4d exported into Blender, so that it plays in the timeline, one frame at a time.

From the command line, with a run's folder or any other that holds exported files:

    blender --python import_asset.py -- output/runs/bird
    blender --background --python import_asset.py -- output/runs/bird --save bird.blend --render bird.png

In Blender's text editor: open this file, write the folder into FOLDER below, and run it (Alt P).

KIND says what is imported, each to be exported before with `ss4d export RUN --formats ...`:

    mesh     the animated GLB of textured meshes, an object for each frame (format glb)
    splats   the numbered PLY files (format ply): each Gaussian an ellipsoid of its size, rotation and color
    points   the USD points (format usd): each Gaussian a sphere; the smallest scene, since Blender streams the file

Units and axes are those of the asset: the object fills one unit, z is up, and its front faces -y.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Matrix

FOLDER = ""  # for the text editor
KIND = "auto"  # "mesh", "splats", "points", or "auto": the first of these that is there
KINDS = ("mesh", "splats", "points")
FPS, MOST_FPS = 24.0, 1000.0  # where nothing beside the files says how fast they play; that Blender can have

EDGE = 0.15  # alpha of a Gaussian at which its ellipsoid, which is solid, ends: pictures look most like its own so
PROPERTIES = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2")
PROPERTIES += ("rot_0", "rot_1", "rot_2", "rot_3")
COLOR = {"splats": "color", "points": "displayColor"}  # names of the attributes of color


class AssetError(Exception):
    """The folder does not hold what was asked for."""


def import_asset(folder: Path, kind: str = "auto", fps: float | None = None) -> list[bpy.types.Object]:
    """Imports one kind of files into the scene; its frames are 0 to n - 1, at the rate of the asset.

    Args:
        folder: of the exported files.
        kind: of KINDS, or "auto".
        fps: frames per second; None: as `cameras.json` in the folder says, or 24.

    Raises:
        AssetError: there are no such files, or they are of another form.
    """
    if not folder.is_dir():
        raise AssetError(f"{folder} is no folder")
    if kind == "auto":
        kind = next((known for known in KINDS if _files(folder, known)), "")
    files = _files(folder, kind)
    if not files:
        raise AssetError(
            f"{folder} has no {kind or 'files that Blender can show'}: `ss4d export RUN --formats glb,ply,usd` writes "
            "all kinds"
        )
    scene = bpy.context.scene
    turntable = read_turntable(folder)
    if fps is None and turntable is None:
        print(f"{folder} has no cameras.json, which says how fast the asset plays: taking {FPS:g} frames a second")
    _set_rate(scene, fps if fps is not None else turntable.fps if turntable else FPS)
    scene.view_settings.view_transform = "Standard"  # others change colors
    importers = {"mesh": _import_mesh, "splats": _import_splats, "points": _import_points}
    objects, num_frames = importers[kind](files)
    scene.frame_start, scene.frame_end = 0, num_frames - 1
    scene.frame_set(0)
    if turntable is not None:
        _add_camera(scene, turntable)
    return objects


def _files(folder: Path, kind: str) -> list[Path]:
    patterns = {"mesh": "mesh.glb", "splats": "frames/frame*.ply", "points": "points.usdc"}
    return sorted(folder.glob(patterns[kind])) if kind in patterns else []


class Turntable(NamedTuple):
    """What `cameras.json` says: the clip's frames per second, and the first camera of the turn."""

    fps: float
    world_to_camera: list[list[float]]
    fov: float
    width: int
    height: int


def read_turntable(folder: Path) -> Turntable | None:
    """What `cameras.json` in the folder says; None if there is none.

    Raises:
        AssetError: it is another kind of file.
    """
    path = folder / "cameras.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        shown, first = [camera["frame"] for camera in document["cameras"]], document["cameras"][0]
        # The pictures of the turn show each frame once, or a few times in a row.
        times = next((number for number, frame in enumerate(shown) if frame != shown[0]), len(shown))
        matrix = [[float(value) for value in row] for row in first["world_to_camera"]]
        sides = int(first["width"]), int(first["height"])
        return Turntable(float(document["fps"]) / times, matrix, float(first["fov"]), *sides)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise AssetError(f"{path} is no list of cameras as ss4d exports it") from error


def _set_rate(scene: bpy.types.Scene, fps: float) -> None:
    """Blender's rate is a whole number, divided by another one."""
    if not 0 < fps < MOST_FPS:
        raise AssetError(f"the rate must be above 0 and below {MOST_FPS:g} frames a second; got {fps:g}")
    scene.render.fps = max(1, math.ceil(fps))
    scene.render.fps_base = scene.render.fps / fps


def _import_mesh(files: list[Path]) -> tuple[list[bpy.types.Object], int]:
    """An object for each frame, whose scale is 0 while another one is shown."""
    before = set(bpy.data.objects)
    bpy.ops.import_scene.gltf(filepath=str(files[0]))
    objects = sorted(set(bpy.data.objects) - before, key=lambda made: made.name)
    for material in {slot.material for made in objects for slot in made.material_slots if slot.material}:
        _without_light(material)
    ends = [made.animation_data.action.frame_range[1] for made in objects if made.animation_data]
    return objects, max(1, round(max(ends, default=1)))


def _import_points(files: list[Path]) -> tuple[list[bpy.types.Object], int]:
    """One point cloud, which Blender reads from the file for each frame that is shown: keep the file where it is."""
    before = set(bpy.data.objects)
    bpy.ops.wm.usd_import(filepath=str(files[0]), set_frame_range=True)
    objects = [made for made in set(bpy.data.objects) - before if made.type == "POINTCLOUD"]
    nodes = _painted(_material("ss4d points", COLOR["points"], "GEOMETRY"))
    for cloud in objects:
        cloud.modifiers.new("color", "NODES").node_group = nodes
    return objects, bpy.context.scene.frame_end + 1


def _import_splats(files: list[Path]) -> tuple[list[bpy.types.Object], int]:
    """An object for each frame, hidden while another one is shown; geometry nodes draw an ellipsoid at each point."""
    collection = bpy.data.collections.new("ss4d splats")
    bpy.context.scene.collection.children.link(collection)
    nodes = _ellipsoids(_material("ss4d splats", COLOR["splats"], "INSTANCER"))
    objects = []
    for t, file in enumerate(files):
        made = bpy.data.objects.new(f"frame{t + 1:04d}", _points(file))
        made.modifiers.new("ellipsoids", "NODES").node_group = nodes
        collection.objects.link(made)
        _show_only(made, t)
        objects.append(made)
    return objects, len(files)


def _show_only(made: bpy.types.Object, frame: int) -> None:
    """Hides an object in all frames but one."""
    for number, hidden in ((frame - 1, True), (frame, False), (frame + 1, True)):
        made.hide_viewport = made.hide_render = hidden
        for path in ("hide_viewport", "hide_render"):
            made.keyframe_insert(path, frame=number)


def read_splats(path: Path) -> dict[str, np.ndarray]:
    """A PLY file's Gaussians, z up.

    Returns:
        `position` (n, 3), `scale` (n, 3) standard deviations, `rotation` (n, 4) quaternions (w, x, y, z), `color`
        (n, 4) linear light with an alpha of 1, `opacity` (n), all float32.

    Raises:
        AssetError: it is no PLY file of Gaussians.
    """
    header, found, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii", "replace").splitlines()
    names = [line.removeprefix("property float ") for line in lines if line.startswith("property float ")]
    counts = [line.removeprefix("element vertex ") for line in lines if line.startswith("element vertex ")]
    sizes = [4 * len(names) * int(count) for count in counts if count.isdecimal()]
    if not found or not {*PROPERTIES} <= {*names} or sizes != [len(body)]:
        raise AssetError(f"{path} is no PLY file of Gaussians as ss4d exports them")
    table = dict(zip(names, np.frombuffer(body, "<f4").reshape(-1, len(names)).T, strict=True))

    def columns(*chosen: str) -> np.ndarray:
        return np.stack([table[name] for name in chosen], axis=1)

    x, y, z = columns("x", "y", "z").T  # y is down
    shown = np.clip(0.5 + 0.28209479177387814 * columns("f_dc_0", "f_dc_1", "f_dc_2"), 0, 1)
    light = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    return {
        "position": np.stack([x, z, -y], axis=1),
        "scale": np.exp(columns("scale_0", "scale_1", "scale_2")),
        "rotation": _turned(columns("rot_0", "rot_1", "rot_2", "rot_3")),
        "color": np.concatenate([light, np.ones((len(light), 1))], axis=1).astype(np.float32),
        "opacity": 1 / (1 + np.exp(-table["opacity"])),
    }


def _turned(quats: np.ndarray) -> np.ndarray:
    """Quaternions from y down to z up: a quarter turn about x follows each."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    half = math.sqrt(0.5)
    return np.stack([half * (w + x), half * (x - w), half * (y + z), half * (z - y)], axis=1)


def _points(file: Path) -> bpy.types.Mesh:
    """The Gaussians of a file as a mesh of vertices with attributes; `size` has the half axes of their ellipsoids."""
    splats = read_splats(file)
    reach = np.sqrt(2 * np.log(np.maximum(splats["opacity"] / EDGE, 1)))  # in standard deviations; 0 of the faint
    splats["size"] = splats["scale"] * reach[:, None]
    mesh = bpy.data.meshes.new(file.stem)
    mesh.vertices.add(len(splats["position"]))
    mesh.vertices.foreach_set("co", splats["position"].ravel())
    kinds = {
        "size": ("FLOAT_VECTOR", "vector"),
        "scale": ("FLOAT_VECTOR", "vector"),
        "rotation": ("QUATERNION", "value"),
        "color": ("FLOAT_COLOR", "color"),
        "opacity": ("FLOAT", "value"),
    }
    for name, (kind, part) in kinds.items():
        values = np.ascontiguousarray(splats[name], np.float32)
        mesh.attributes.new(name, kind, "POINT").data.foreach_set(part, values.ravel())
    mesh.update()
    return mesh


def _ellipsoids(material: bpy.types.Material) -> bpy.types.NodeTree:
    """Geometry nodes that put an ellipsoid onto each point, by its attributes."""
    tree, points, drawn = _geometry_nodes("ss4d ellipsoids")
    sphere = tree.nodes.new("GeometryNodeMeshIcoSphere")
    sphere.inputs["Subdivisions"].default_value = 2
    smooth, painted = tree.nodes.new("GeometryNodeSetShadeSmooth"), tree.nodes.new("GeometryNodeSetMaterial")
    painted.inputs["Material"].default_value = material
    placed = tree.nodes.new("GeometryNodeInstanceOnPoints")
    tree.links.new(points, placed.inputs["Points"])
    tree.links.new(sphere.outputs["Mesh"], smooth.inputs["Mesh"])
    tree.links.new(smooth.outputs[0], painted.inputs["Geometry"])
    tree.links.new(painted.outputs["Geometry"], placed.inputs["Instance"])
    tree.links.new(_attribute(tree, "rotation", "QUATERNION"), placed.inputs["Rotation"])
    tree.links.new(_attribute(tree, "size", "FLOAT_VECTOR"), placed.inputs["Scale"])
    tree.links.new(placed.outputs["Instances"], drawn)
    return tree


def _painted(material: bpy.types.Material) -> bpy.types.NodeTree:
    """Geometry nodes that give a material to what a file brings anew for each frame, which has none."""
    tree, given, made = _geometry_nodes("ss4d color")
    painted = tree.nodes.new("GeometryNodeSetMaterial")
    painted.inputs["Material"].default_value = material
    tree.links.new(given, painted.inputs["Geometry"])
    tree.links.new(painted.outputs["Geometry"], made)
    return tree


def _geometry_nodes(name: str) -> tuple[bpy.types.NodeTree, bpy.types.NodeSocket, bpy.types.NodeSocket]:
    """Geometry nodes without any, with the sockets of what goes in and of what comes out."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    for way in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=way, socket_type="NodeSocketGeometry")
    given, made = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    return tree, given.outputs["Geometry"], made.inputs["Geometry"]


def _attribute(tree: bpy.types.NodeTree, name: str, kind: str) -> bpy.types.NodeSocket:
    node = tree.nodes.new("GeometryNodeInputNamedAttribute")
    node.data_type = kind
    node.inputs["Name"].default_value = name
    return next(socket for socket in node.outputs if socket.enabled and socket.name == "Attribute")


def _without_light(material: bpy.types.Material) -> None:
    """Shows a material's own color whatever the light, since the asset's has light in it already."""
    tree = material.node_tree
    for surface in [node for node in tree.nodes if node.type == "BSDF_PRINCIPLED"]:
        color, light = surface.inputs["Base Color"], tree.nodes.new("ShaderNodeEmission")
        if color.is_linked:
            tree.links.new(color.links[0].from_socket, light.inputs["Color"])
        else:
            light.inputs["Color"].default_value = color.default_value
        for link in list(surface.outputs["BSDF"].links):
            tree.links.new(light.outputs["Emission"], link.to_socket)


def _material(name: str, attribute: str, where: str) -> bpy.types.Material:
    """A material that shows an attribute's color as it is, whatever the light."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:  # of Blender before 5
        material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    color, light = tree.nodes.new("ShaderNodeAttribute"), tree.nodes.new("ShaderNodeEmission")
    color.attribute_name, color.attribute_type = attribute, where
    tree.links.new(color.outputs["Color"], light.inputs["Color"])
    tree.links.new(light.outputs["Emission"], tree.nodes.new("ShaderNodeOutputMaterial").inputs["Surface"])
    return material


def _add_camera(scene: bpy.types.Scene, turntable: Turntable) -> None:
    """A camera where the turntable begins."""
    data = bpy.data.cameras.new("ss4d camera")
    data.sensor_fit, data.angle = "HORIZONTAL", math.radians(turntable.fov)
    data.clip_start = 0.01
    camera = bpy.data.objects.new("ss4d camera", data)
    # Its y is down and its z forward; those of Blender's cameras are up and backward.
    camera.matrix_world = Matrix(turntable.world_to_camera).inverted() @ Matrix.Diagonal((1, -1, -1, 1))
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.resolution_x, scene.render.resolution_y = turntable.width, turntable.height


def render(path: Path, frame: int, samples: int) -> None:
    """Writes a PNG of a frame, drawn by Cycles, with a transparent background."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = samples, False
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path.absolute())
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)


def main(words: list[str]) -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="import_asset.py", description="imports an exported asset")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER or None, help="of the exported files")
    parser.add_argument("--kind", choices=("auto", *KINDS), default=KIND)
    parser.add_argument("--fps", type=float, help="frames per second; as cameras.json says")
    parser.add_argument("--save", type=Path, metavar="FILE.blend", help="writes the scene")
    parser.add_argument("--render", type=Path, metavar="FILE.png", help="draws a frame with Cycles")
    parser.add_argument("--frame", type=int, default=0, help="the one that --render draws, from 0")
    parser.add_argument("--samples", type=int, default=16, help="of each pixel that --render draws")
    asked = parser.parse_args(words)
    if asked.folder is None:
        raise AssetError("name the folder of the exported files, after -- or as FOLDER in the script")
    if bpy.app.background:  # not where somebody may have a scene of their own open
        bpy.ops.wm.read_factory_settings(use_empty=True)
    objects = import_asset(asked.folder, asked.kind, asked.fps)
    scene = bpy.context.scene
    rate = scene.render.fps / scene.render.fps_base
    print(f"{len(objects)} objects, frames {scene.frame_start} to {scene.frame_end} at {rate:g} a second")
    if asked.save:
        bpy.ops.wm.save_as_mainfile(filepath=str(asked.save.absolute()))
    if asked.render:
        if scene.camera is None:
            raise AssetError(f"{asked.folder} has no cameras.json, so there is no camera to render from")
        render(asked.render, asked.frame, asked.samples)


if __name__ == "__main__":
    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    try:
        main(given)
    except AssetError as error:
        if not bpy.app.background:  # Blender shows it
            raise
        sys.exit(f"import_asset.py: {error}")
