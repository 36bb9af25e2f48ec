"""glTF files for tests, built number by number: a tetrahedron that tests change, cards and spheres."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KINDS = {"<f4": 5126, "<u4": 5125, "<u2": 5123, "<u1": 5121, "<i1": 5120, "<i2": 5122}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
HALF_TURN = [0.0, 0.0, 1.0, 0.0]
QUARTER = [0.0, 0.0, float(np.sqrt(0.5)), float(np.sqrt(0.5))]  # about z


class Builder:
    """Collects arrays into one buffer; `save` writes a GLB."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "buffers": []}
        self.data = b""

    def view(self, data: bytes) -> int:
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data + b"\0" * (-len(data) % 4)
        return len(self.json["bufferViews"]) - 1

    def add(self, values: Any, kind: str = "<f4", *, normalized: bool = False) -> int:
        array = np.asarray(values, kind)
        width = array.shape[1] if array.ndim > 1 else 1
        accessor = {"bufferView": self.view(array.tobytes()), "componentType": KINDS[kind], "count": len(array)}
        self.json["accessors"].append(accessor | {"type": TYPES[width], "normalized": normalized})
        return len(self.json["accessors"]) - 1

    def animate(self, *channels: tuple[int, str, Any, Any, str]) -> None:
        animation: dict[str, Any] = {"samplers": [], "channels": []}
        for node, path, times, values, interpolation in channels:
            sampler = {"input": self.add(times), "output": self.add(values), "interpolation": interpolation}
            target = {"sampler": len(animation["samplers"]), "target": {"node": node, "path": path}}
            animation["channels"].append(target)
            animation["samplers"].append(sampler)
        self.json["animations"] = [animation]

    def animate_also(self, name: str, *channels: tuple[int, str, Any, Any, str]) -> None:
        """Adds an animation to those that there are."""
        before = self.json.get("animations", [])
        self.animate(*channels)
        self.json["animations"] = [*before, {"name": name, **self.json["animations"][0]}]

    def save(self, path: Path) -> Path:
        self.json["buffers"][:1] = [{"byteLength": len(self.data)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        chunks = (
            struct.pack("<II", len(text), 0x4E4F534A)
            + text
            + struct.pack("<II", len(self.data), 0x004E4942)
            + self.data
        )
        path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
        return path


POINTS = np.array([[-1, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)  # a tetrahedron, longest along z
FACES = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]


def tetrahedron() -> Builder:
    builder = Builder()
    primitive = {"attributes": {"POSITION": builder.add(POINTS)}, "indices": builder.add(np.ravel(FACES), "<u2")}
    builder.json |= {
        "meshes": [{"primitives": [primitive]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    return builder


def primitive(builder: Builder) -> dict[str, Any]:
    held: dict[str, Any] = builder.json["meshes"][0]["primitives"][0]
    return held


def textured(picture: NDArray[np.uint8], kind: str = "PNG") -> Builder:
    """The tetrahedron with a texture that runs along x."""
    builder = tetrahedron()
    show(builder, picture, kind)
    places = POINTS[:, :1] * (0.4, 0) + (0.5, 0.5)
    primitive(builder)["attributes"]["TEXCOORD_0"] = builder.add(places)
    return builder


def encoded(picture: NDArray[np.generic], kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def show(builder: Builder, picture: NDArray[np.generic] | bytes, kind: str = "PNG", **material: Any) -> dict[str, Any]:
    """Gives the one primitive a material with a picture as base color; the material."""
    data = picture if isinstance(picture, bytes) else encoded(picture, kind)
    builder.json["images"] = [{"bufferView": builder.view(data), "mimeType": "image/png"}]
    builder.json["textures"] = [{"source": 0}]
    held = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, **material}
    builder.json["materials"] = [held]
    primitive(builder)["material"] = 0
    return held


def card(scale: float = 1.0, **material: Any) -> Builder:
    """A square of side 2 in the plane z = 0 whose front looks at +z, with coordinates of a picture seen upright."""
    builder = Builder()
    attributes = {
        "POSITION": builder.add(np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * scale),
        "NORMAL": builder.add(np.tile([0, 0, 1], (4, 1))),
        "TEXCOORD_0": builder.add([[0, 1], [1, 1], [1, 0], [0, 0]]),
    }
    held = {"attributes": attributes, "indices": builder.add([0, 1, 2, 0, 2, 3], "<u2")}
    builder.json |= {"meshes": [{"primitives": [held]}], "nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}], "scene": 0}
    if material:
        builder.json["materials"] = [material]
        held["material"] = 0
    return builder


def sphere(count: int = 12) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points (v, 3) at distance 1 and faces (f, 3), counter-clockwise seen from outside."""
    across, down = np.meshgrid(np.arange(2 * count + 1) * np.pi / count, np.arange(count + 1) * np.pi / count)
    points = np.stack((np.sin(down) * np.sin(across), np.cos(down), np.sin(down) * np.cos(across)), -1).reshape(-1, 3)
    row, column = (index.ravel() for index in np.meshgrid(np.arange(count), np.arange(2 * count), indexing="ij"))
    a, b = row * (2 * count + 1) + column, (row + 1) * (2 * count + 1) + column
    return points, np.concatenate((np.stack((a, b, b + 1), -1), np.stack((a, b + 1, a + 1), -1)))


def add_mesh(
    builder: Builder,
    points: NDArray[np.float64],
    faces: NDArray[np.int64],
    normals: NDArray[np.float64] | None = None,
    material: dict[str, Any] | None = None,
    **node: Any,
) -> int:
    """Adds a node with a mesh of its own, and the material; the node's number."""
    held = {"attributes": {"POSITION": builder.add(points)}, "indices": builder.add(np.ravel(faces), "<u2")}
    if normals is not None:
        held["attributes"]["NORMAL"] = builder.add(normals)
    if material is not None:
        builder.json.setdefault("materials", []).append(material)
        held["material"] = len(builder.json["materials"]) - 1
    builder.json.setdefault("meshes", []).append({"primitives": [held]})
    builder.json.setdefault("nodes", []).append({"mesh": len(builder.json["meshes"]) - 1, **node})
    builder.json["scenes"] = [{"nodes": list(range(len(builder.json["nodes"])))}]
    return len(builder.json["nodes"]) - 1
