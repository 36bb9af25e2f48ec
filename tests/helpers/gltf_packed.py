"""glTF files whose arrays and images are packed as the extra `assets` reads them."""

import struct
from typing import Any

import DracoPy
import meshopt
import numpy as np

from tests.helpers.gltf_files import FACES, Builder, card, primitive, show


def with_draco(builder: Builder) -> Builder:
    """The tetrahedron with its arrays in Draco's data, and accessors that hold nothing."""
    held = primitive(builder)
    names = {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 2}
    arrays: dict[str, Any] = {}
    for name in names:
        if name in held["attributes"]:
            accessor = builder.json["accessors"][held["attributes"][name]]
            view = builder.json["bufferViews"][accessor.pop("bufferView")]
            kind = {5126: "<f4", 5121: "<u1"}[accessor["componentType"]]
            data = builder.data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
            arrays[name] = np.frombuffer(data, kind).reshape(accessor["count"], -1)
    more = {names[name]: array for name, array in arrays.items() if name != "POSITION"}
    data = DracoPy.encode(
        arrays["POSITION"].copy(), np.array(FACES, np.uint32), quantization_bits=16, preserve_order=True,
        generic_attributes=more,
    )  # fmt: skip
    ids = {name: names[name] for name in arrays if name != "POSITION"}
    points = next(held for held in DracoPy.decode(data).attributes if held["attribute_type"] == 0)
    ids["POSITION"] = points["unique_id"]
    builder.json["accessors"][held["indices"]].pop("bufferView")
    held["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": builder.view(data), "attributes": ids}}
    builder.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return builder


def with_meshopt(builder: Builder) -> Builder:
    """All arrays of the builder packed, in views that say so."""
    for accessor in builder.json["accessors"]:
        view = builder.json["bufferViews"][accessor["bufferView"]]
        data = builder.data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        if accessor["type"] == "SCALAR":
            mode, stride = "TRIANGLES", 2
            packed = meshopt.encode_gltf_buffer(np.frombuffer(data, "<u2"), mode)
        else:
            mode, stride = "ATTRIBUTES", view["byteLength"] // accessor["count"]
            packed = meshopt.encode_gltf_buffer(np.frombuffer(data, np.uint8).reshape(-1, stride), mode)
        held = builder.json["bufferViews"][builder.view(packed)]
        values = {"buffer": 0, "byteOffset": held["byteOffset"], "byteLength": held["byteLength"]}
        values |= {"byteStride": stride, "count": accessor["count"], "mode": mode}
        # As files are that hold nothing else: the view itself lies in a buffer that is nowhere.
        view |= {"buffer": 1, "byteOffset": 0, "extensions": {"EXT_meshopt_compression": values}}
    builder.json["buffers"] = [{}, {"byteLength": 1, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}]
    builder.json["extensionsRequired"] = ["EXT_meshopt_compression"]
    return builder


def solid_block(red: int, green: int, blue: int, alpha: int) -> bytes:
    """A UASTC block of 4 x 4 pixels of one color: mode 8 of its specification, without hints."""
    bits = 0x17 | red << 5 | green << 13 | blue << 21 | alpha << 29
    return bits.to_bytes(16, "little")


def ktx2(colors: list[list[tuple[int, int, int, int]]]) -> bytes:
    """A KTX2 file of Basis Universal's UASTC, with a block for each color."""
    data = b"".join(solid_block(*color) for row in colors for color in row)
    block = struct.pack("<HHHH", 0, 0, 2, 40) + bytes([166, 1, 2, 0, 3, 3, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0])
    block += struct.pack("<HBB4BII", 0, 127, 3, 0, 0, 0, 0, 0, 0xFFFFFFFF)
    described = struct.pack("<I", 4 + len(block)) + block
    head = b"\xabKTX 20\xbb\r\n\x1a\n" + struct.pack("<9I", 0, 1, len(colors[0]) * 4, len(colors) * 4, 0, 0, 1, 1, 0)
    start = len(head) + 32 + 24 + len(described)
    start += -start % 16
    index = struct.pack("<4I2Q", len(head) + 56, len(described), 0, 0, 0, 0) + struct.pack(
        "<3Q", start, len(data), len(data)
    )
    return (head + index + described).ljust(start, b"\0") + data


def with_ktx2(data: bytes) -> Builder:
    builder = card(pbrMetallicRoughness={})
    show(builder, data)
    builder.json["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    builder.json["extensionsRequired"] = ["KHR_texture_basisu"]
    return builder
