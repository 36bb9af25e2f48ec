"""Reads glTF 2.0 and GLB files: parsed structure, arrays of numbers and images; y is up here, as in the file."""

import base64
import binascii
import json
import os
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from pygltflib import GLTF2  # type: ignore[import-untyped] # the library has no type marker

from ss4d.stages.data.gltf_compression import DRACO, MESHOPT, DracoMesh, decoded_view, is_installed
from ss4d.stages.data.gltf_references import AGAIN, check_references, printable
from ss4d.stages.errors import InputError

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
MOST_READ = 20  # parts of meshes, of which there may be thousands, often share an array
OF_THE_LIBRARY = (TypeError, AttributeError, OverflowError, struct.error)  # for values that are none of its own
# Extensions a file may require: these are read ...
READ = (
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_texture_basisu",
    "KHR_node_visibility",
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
    "EXT_mesh_gpu_instancing",
    "EXT_texture_webp",
    "EXT_texture_avif",
)
# ... and those whose names begin like these leave shape, base color and motion as they are.
HARMLESS = (
    *("KHR_materials_", "KHR_lights_", "KHR_xmp", "KHR_audio", "KHR_animation_pointer", "KHR_physics_"),
    *("KHR_implicit_shapes", "KHR_collision_shapes", "KHR_rigid_bodies", "KHR_interactivity", "KHR_node_hoverability"),
    *("KHR_node_selectability", "EXT_lights_", "EXT_materials_", "EXT_mesh_features", "EXT_mesh_manifold"),
    *("EXT_instance_features", "EXT_structural_metadata", "MSFT_lod", "MSFT_packing_", "MSFT_texture_dds"),
    *("ADOBE_materials_", "CESIUM_primitive_outline", "CESIUM_RTC", "FB_ngon_encoding", "GODOT_single_root", "OMI_"),
    *("VRM", "MX_", "NV_materials_", "WEB3D_", "MPEG_"),
)


@dataclass(frozen=True)
class AssetLimits:
    """What one asset may cost: a small file can describe any number of triangles, and a small image unfold to any size.

    Attributes:
        max_triangles: in all, after those with a texture are split finely.
        max_texture: pixels of one texture; and a `gltf_textures.MOST_DECODED`th of those of all that are shown.
        max_numbers: of one array in the file, a vertex having three for its place; of the morph targets of a part of a
            mesh together; of all animations together; and a `MOST_READ`th of all that is read, where an array that is
            used again counts again.
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
        self._read = 0  # numbers so far
        self._buffers: dict[int, bytes] = {}
        self._unpacked_views: dict[int, bytes] = {}
        self._decoded: dict[int, NDArray[Any]] = {}

    def array(self, index: int) -> NDArray[Any]:
        """The numbers of an accessor, (n,) or (n, width): float64 if they are floats or normalized, else integers."""
        accessor = self.gltf.accessors[index]
        width, kind = WIDTHS.get(accessor.type), COMPONENTS.get(accessor.componentType)
        if width is None or kind is None:
            raise InputError(
                f"{self.path}: accessor {index} is of {accessor.type}/{accessor.componentType}, which no array here "
                f"is; {AGAIN}"
            )
        if accessor.count * width > self.limits.max_numbers:
            raise InputError(
                f"{self.path}: accessor {index} has {accessor.count:,} items of {width}, over the limit of "
                f"{self.limits.max_numbers:,} numbers (max_numbers)."
            )
        self._read += accessor.count * width
        if self._read > MOST_READ * self.limits.max_numbers:
            raise InputError(
                f"{self.path} uses arrays of more than {MOST_READ * self.limits.max_numbers:,} numbers in all, "
                f"{MOST_READ} times the limit of one (max_numbers)."
            )
        values = np.zeros((0 if index in self._decoded else accessor.count, width), kind)
        if index in self._decoded:
            values = self._decoded[index]
        elif accessor.bufferView is not None:
            values = self._numbers(accessor.bufferView, accessor.byteOffset or 0, accessor.count, width, kind)
        if accessor.sparse is not None:
            rows, changed = accessor.sparse.indices, accessor.sparse.values
            count = accessor.sparse.count
            where = self._numbers(rows.bufferView, rows.byteOffset or 0, count, 1, COMPONENTS[rows.componentType])[:, 0]
            if len(where) and (where.min() < 0 or where.max() >= accessor.count):
                raise InputError(f"{self.path}: accessor {index} changes items that it does not have; {AGAIN}")
            values = values.copy()
            values[where] = self._numbers(changed.bufferView, changed.byteOffset or 0, count, width, kind)
        if accessor.normalized and values.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(values.dtype).max, -1)
        values = values.astype(np.float64) if values.dtype.kind == "f" else values
        return values[:, 0] if width == 1 else values

    def numbers_in(self, index: int) -> int:
        """How many numbers an accessor says that it has."""
        accessor = self.gltf.accessors[index]
        return int(accessor.count) * WIDTHS.get(accessor.type, 1)

    def stored_weights(self, node: int, count: int) -> NDArray[np.float64]:
        """The morph targets' weights (count,) where they are not animated: the node's, else the mesh's, else 0."""
        mesh = self.gltf.nodes[node].mesh
        weights = self.node_weights.get(node) or (self.gltf.meshes[mesh].weights if mesh is not None else None)
        made = np.zeros(count)
        held = np.asarray(weights or (), np.float64)[:count]
        made[: len(held)] = held
        return made

    def image_data(self, index: int) -> bytes:
        """An image as it is stored."""
        image = self.gltf.images[index]
        if not image.uri and image.bufferView is None:
            raise InputError(f"{self.path}: image {index} has neither a file nor data; {AGAIN}")
        return self._uri(image.uri) if image.uri else self.view(image.bufferView)

    def _refuse_unsupported(self) -> None:
        for name in self.gltf.extensionsRequired or []:
            if name not in READ and not name.startswith(HARMLESS):
                raise InputError(
                    f"{self.path} requires the extension {printable(name)}, which may change what is seen and is not "
                    "read here; save it without."
                )
        if not any(mesh.primitives for mesh in self.gltf.meshes):
            raise InputError(f"{self.path} has no mesh; give a file with at least one.")

    def _numbers(self, view_index: int, offset: int, count: int, width: int, kind: str) -> NDArray[Any]:
        view = self.gltf.bufferViews[view_index]
        item = np.dtype(kind).itemsize * width
        stride = view.byteStride or item
        data = self.view(view_index)
        if offset + (count - 1) * stride + item > len(data):
            raise InputError(
                f"{self.path}: buffer view {view_index} has {len(data)} bytes, too few for its {count} items; it "
                "was cut off, or saved wrongly; export it again."
            )
        strided = np.ndarray((count, width), kind, data, offset, (stride, np.dtype(kind).itemsize))
        return np.ascontiguousarray(strided)

    def view(self, index: int) -> bytes:
        """The bytes of a buffer view, uncompressed."""
        view = self.gltf.bufferViews[index]
        packed = next((held for name, held in (view.extensions or {}).items() if name in MESHOPT), None)
        if packed is None or self._has_plain(MESHOPT, "meshopt"):
            return self._bytes(view.buffer, view.byteOffset, view.byteLength)
        if index not in self._unpacked_views:
            data = self._bytes(packed["buffer"], packed.get("byteOffset"), packed["byteLength"])
            name = f"{self.path}: buffer view {index}"
            self._unpacked_views[index] = decoded_view(data, packed, self.limits.max_numbers, name)
        return self._unpacked_views[index]

    def unpack(self, primitive: Any, name: str) -> None:
        """Decodes the arrays of a primitive that Draco packed, for `array` to give; nothing for any other.

        Args:
            primitive: of the parsed file.
            name: what to call it in an error.

        Raises:
            InputError: if it is damaged, or the package that reads it is not there.
        """
        packed = (primitive.extensions or {}).get(DRACO)
        if packed is None or self._has_plain((DRACO,), "DracoPy"):
            return
        if not isinstance(packed, dict) or not {"bufferView", "attributes"} <= packed.keys():
            raise InputError(f"{self.path}: {name} has no data for its {DRACO}; {AGAIN}")
        decoded = DracoMesh(self.view(packed["bufferView"]), f"{self.path}: {name}", self.limits.max_numbers)
        if primitive.indices is not None:
            self._decoded[primitive.indices] = decoded.indices()
        for attribute, number in packed["attributes"].items():
            accessor = getattr(primitive.attributes, attribute, None)
            if accessor is not None:
                self._decoded[accessor] = decoded.attribute(number, attribute)

    def _has_plain(self, extensions: Sequence[str], module: str) -> bool:
        """Whether to take the uncompressed data that a file has beside what cannot be read here.

        It has them if it does not require the extension.
        """
        return not {*extensions} & {*(self.gltf.extensionsRequired or [])} and not is_installed(module)

    def _bytes(self, buffer: int, offset: int | None, length: int) -> bytes:
        start = offset or 0
        return self._buffer(buffer)[start : start + length]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self.gltf.buffers[index].uri
            data = self._uri(uri) if uri else self.gltf.binary_blob() if index == 0 else None
            if data is None:
                raise InputError(f"{self.path}: buffer {index} is not in the file; it was cut off or saved wrongly.")
            self._buffers[index] = bytes(data)
        return self._buffers[index]

    def _uri(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise InputError(f"{self.path}: embedded data is damaged: {error}; export it again.") from error
        folder = os.path.realpath(self.path.parent)
        name = unquote(uri).replace("\\", "/")  # as Windows writes them
        target = Path(os.path.realpath(Path(folder, name.replace("\0", "?"))))  # no name on a disk has a null
        if "://" in uri or not target.is_relative_to(folder):
            raise InputError(f"{self.path} points to {printable(uri)}, outside its folder; put its files beside it.")
        if not target.is_file():
            raise InputError(f"{self.path} needs {printable(uri)}, which is missing; put it beside the file.")
        return target.read_bytes()


def _parse(path: Path) -> tuple[GLTF2, dict[str, Any]]:
    """The file as the library reads it, and its JSON."""
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a .glb or .gltf file.")
    data = path.read_bytes()
    binary = data[:4] == b"glTF"
    try:
        # Some programs write a mark of the byte order before the text, which it should not have.
        text = (data[20 : 20 + int.from_bytes(data[12:16], "little")] if binary else data).decode("utf-8-sig")
        held = json.loads(text)
        version = held["asset"]["version"]
        if str(version).startswith("2"):
            check_references(path, held)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of chunks that the format says to pass over
            gltf = GLTF2.load_from_bytes(data) if binary else GLTF2.gltf_from_json(text)
    except InputError:
        raise
    except (*OF_THE_LIBRARY, ValueError, LookupError, OSError, RecursionError) as error:
        raise InputError(f"{path} is not a glTF 2.0 file ({error}); give a .glb or .gltf file.") from error
    if not str(version).startswith("2"):
        raise InputError(f"{path} is glTF {printable(version)}; convert it to version 2.")
    return gltf, held
