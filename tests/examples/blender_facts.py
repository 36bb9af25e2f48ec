"""Runs in Blender: imports exported files with the example script, and writes down what Blender then shows.

Takes the script's folder, the folder of the files, a kind, and a folder for `facts.json` and pictures.
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np

PARTS = {"FLOAT": ("value", 1), "FLOAT_VECTOR": ("vector", 3), "FLOAT_COLOR": ("color", 4), "QUATERNION": ("value", 4)}


def attributes(data: bpy.types.ID) -> dict[str, list]:
    """The attributes of points, by name."""
    found = {}
    for attribute in data.attributes:
        if attribute.domain == "POINT" and attribute.data_type in PARTS:
            part, width = PARTS[attribute.data_type]
            values = np.zeros(len(attribute.data) * width, np.float32)
            attribute.data.foreach_get(part, values)
            found[attribute.name] = values.reshape(-1, width).tolist()
    return found


def shown(made: bpy.types.Object) -> bool:
    return not made.hide_render and max(abs(side) for side in made.matrix_world.to_scale()) > 0


def facts(made: bpy.types.Object) -> dict:
    """What is drawn of an object in the frame that is set."""
    evaluated = made.evaluated_get(bpy.context.evaluated_depsgraph_get())
    data = evaluated.data if made.type == "POINTCLOUD" else made.data
    places = [list(made.matrix_world @ vertex.co) for vertex in data.vertices] if made.type == "MESH" else None
    return {"name": made.name, "places": places, "attributes": attributes(data)}


def main() -> None:
    script, folder, kind, out = sys.argv[sys.argv.index("--") + 1 :]
    sys.path.insert(0, script)
    import import_asset

    bpy.ops.wm.read_factory_settings(use_empty=True)
    objects = import_asset.import_asset(Path(folder), kind)
    scene = bpy.context.scene
    frames = []
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        frames.append([facts(made) for made in objects if made.data is not None and shown(made)])
        import_asset.render(Path(out) / f"{frame}.png", frame, 16)
    rate = scene.render.fps / scene.render.fps_base
    described = {"rate": rate, "range": [scene.frame_start, scene.frame_end], "frames": frames}
    (Path(out) / "facts.json").write_text(json.dumps(described))


main()
