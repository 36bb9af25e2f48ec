"""Reads glTF 2.0 and GLB files: parsed structure, arrays of numbers and images; y is up here, as in the file."""

import base64
import binascii
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pygltflib import GLTF2  # type: ignore[import-untyped] # the library has no type marker

from ss4d.stages.errors import InputError

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
# Extensions a file may require: numbers stored as integers are decoded, the others leave the base color as it is.
SUPPORTED = (
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit",
)


# What may be negative; every other number in a file counts something, points to it or is a share.
SIGNED = {"translation", "rotation", "scale", "matrix", "weights", "min", "max", "extensions", "extras"}
FORMATS = ("JPEG", "PNG", "WEBP")  # of textures; another decoder of the library may start a program


@dataclass(frozen=True)
class AssetLimits:
    """What one asset may cost: a small file can describe any number of triangles, and a small image unfold to any size.

    Attributes:
        max_triangles: in all, after those with a texture are split finely.
        max_texture: pixels of one texture.
        max_numbers: of one array in the file, a vertex having three for its place.
    """

    max_triangles: int = 2_000_000
    max_texture: int = 8192 * 8192
    max_numbers: int = 50_000_000


USUAL_LIMITS = AssetLimits()


class GltfFile:
    """A parsed file with its buffers, which are read once.

    Args:
        path: a .gltf or .glb file.
        limits: what it may cost.

    Raises:
        InputError: the file is missing, not glTF 2.0, needs an extension that is not supported, or points outside its
            folder.
    """

    def __init__(self, path: Path, limits: AssetLimits = USUAL_LIMITS) -> None:
        self.path = path
        self.limits = limits
        self.gltf, held = _parse(path)
        # The library does not know the weights of nodes.
        self.node_weights = {i: node["weights"] for i, node in enumerate(held.get("nodes", [])) if "weights" in node}
        self._refuse_unsupported()
        self._buffers: dict[int, bytes] = {}

    def array(self, index: int) -> NDArray[Any]:
        """The numbers of an accessor, (n,) or (n, width): float64 if they are floats or normalized, else integers."""
        accessor = self.gltf.accessors[index]
        width, kind = WIDTHS.get(accessor.type), COMPONENTS.get(accessor.componentType)
        if width is None or kind is None:
            raise InputError(
                f"{self.path}: accessor {index} is of {accessor.type}/{accessor.componentType}, unknown here."
            )
        if accessor.count * width > self.limits.max_numbers:
            raise InputError(
                f"{self.path}: accessor {index} has {accessor.count:,} items of {width}, over the limit of "
                f"{self.limits.max_numbers:,} numbers (max_numbers)."
            )
        values = np.zeros((accessor.count, width), kind)
        if accessor.bufferView is not None:
            values = self._numbers(accessor.bufferView, accessor.byteOffset or 0, accessor.count, width, kind)
        if accessor.sparse is not None:
            rows, changed = accessor.sparse.indices, accessor.sparse.values
            count = accessor.sparse.count
            where = self._numbers(rows.bufferView, rows.byteOffset or 0, count, 1, COMPONENTS[rows.componentType])[:, 0]
            if len(where) and where.min() < 0:
                raise InputError(f"{self.path} is damaged: accessor {index} changes item {where.min()}.")
            values = values.copy()
            values[where] = self._numbers(changed.bufferView, changed.byteOffset or 0, count, width, kind)
        if accessor.normalized and values.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(values.dtype).max, -1)
        values = values.astype(np.float64) if values.dtype.kind == "f" else values
        return values[:, 0] if width == 1 else values

    def image(self, index: int) -> NDArray[np.uint8]:
        """An image (h, w, 3) as stored: sRGB, 0 to 255."""
        image = self.gltf.images[index]
        data = self._uri(image.uri) if image.uri else self._view(image.bufferView)
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
            if opened.width * opened.height > self.limits.max_texture:
                raise InputError(
                    f"{self.path}: image {index} has {opened.width} x {opened.height} pixels, over the limit of "
                    f"{self.limits.max_texture:,} (max_texture); make it smaller."
                )
            return np.asarray(opened.convert("RGB"))
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.path}: image {index} cannot be read: {error}.") from error

    def _refuse_unsupported(self) -> None:
        required = self.gltf.extensionsRequired or []
        primitives = [primitive for mesh in self.gltf.meshes for primitive in mesh.primitives]
        used = {name for primitive in primitives for name in primitive.extensions or {}}
        for name in COMPRESSIONS:
            if name in used or name in required:
                raise InputError(
                    f"{self.path} is compressed with {name}, which is not supported; save it uncompressed."
                )
        for name in required:
            if name not in SUPPORTED:
                raise InputError(f"{self.path} requires the extension {name}, which is not supported; save it without.")
        if not primitives:
            raise InputError(f"{self.path} has no mesh; give a file with at least one.")

    def _numbers(self, view_index: int, offset: int, count: int, width: int, kind: str) -> NDArray[Any]:
        view = self.gltf.bufferViews[view_index]
        item = np.dtype(kind).itemsize * width
        stride = view.byteStride or item
        data = self._view(view_index)
        if offset + (count - 1) * stride + item > len(data):
            raise InputError(
                f"{self.path}: buffer view {view_index} has {len(data)} bytes, too few for its {count} items."
            )
        strided = np.ndarray((count, width), kind, data, offset, (stride, np.dtype(kind).itemsize))
        return np.ascontiguousarray(strided)

    def _view(self, index: int) -> bytes:
        view = self.gltf.bufferViews[index]
        start = view.byteOffset or 0
        return self._buffer(view.buffer)[start : start + view.byteLength]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self.gltf.buffers[index].uri
            data = self._uri(uri) if uri else self.gltf.binary_blob()
            if data is None:
                raise InputError(f"{self.path}: buffer {index} is not in the file; it was cut off or saved wrongly.")
            self._buffers[index] = bytes(data)
        return self._buffers[index]

    def _uri(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise InputError(f"{self.path}: embedded data is damaged: {error}.") from error
        folder = self.path.parent.resolve()
        target = (folder / unquote(uri)).resolve()
        if "://" in uri or not target.is_relative_to(folder):
            raise InputError(f"{self.path} points to {uri}, outside its folder; put its files beside it.")
        if not target.is_file():
            raise InputError(f"{self.path} needs {uri}, which is missing; put it beside the file.")
        return target.read_bytes()


def _parse(path: Path) -> tuple[GLTF2, dict[str, Any]]:
    """The file as the library reads it, and its JSON."""
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a .glb or .gltf file.")
    data = path.read_bytes()
    binary = data[:4] == b"glTF"
    try:
        held = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")] if binary else data)
        version = held["asset"]["version"]
        gltf = GLTF2.load_from_bytes(data) if binary else GLTF2.gltf_from_json(data.decode())
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, struct.error) as error:
        raise InputError(f"{path} is not a glTF 2.0 file ({error}); give a .glb or .gltf file.") from error
    if not str(version).startswith("2"):
        raise InputError(f"{path} is glTF {version}; convert it to version 2.")
    if (key := _negative(held)) is not None:  # to Python it would count from the end
        raise InputError(f"{path} is damaged: it has a number below 0 as its {key}.")
    return gltf, held


def _negative(value: object, key: str = "") -> str | None:
    """The name of the first number below 0 that counts something or points to it; None if there is none."""
    if isinstance(value, dict):
        inner = [(part, name) for name, part in value.items() if name not in SIGNED]
    elif isinstance(value, list):
        inner = [(part, key) for part in value]
    else:
        return key if isinstance(value, int | float) and value < 0 else None
    return next((found for part, name in inner if (found := _negative(part, name)) is not None), None)
