"""A binary glTF file (GLB) as its document and its bytes, which are made while they are written.

Arrays are declared first, so that the document is complete before the first byte of them is there: a long clip need
not fit into memory.
"""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ss4d.stages.errors import InputError

MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, UNSIGNED_BYTE, UNSIGNED_INT = 5126, 5121, 5125  # types of components, as glTF counts them
VERTICES, INDICES = 34962, 34963  # a view's target
SIZES = {FLOAT: 4, UNSIGNED_BYTE: 1, UNSIGNED_INT: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
MOST_BYTES = 2**32 - 1  # a GLB says its length in 32 bits


@dataclass
class GlbArrays:
    """The arrays of a file, in the order in which their bytes will follow; each begins at a multiple of four.

    Attributes:
        accessors, views: as the document lists them.
        length: bytes so far.
    """

    accessors: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    length: int = 0

    def add(self, count: int, kind: str, component: int = FLOAT, *, target: int | None = None, **more: Any) -> int:
        """Declares `count` elements, such as "VEC3"; gives the accessor's number.

        Args:
            count: at least 1.
            kind: of the elements, a key of `COMPONENTS`.
            component: a key of `SIZES`.
            target: what a graphics card takes the array for, such as `VERTICES`; None of other arrays.
            more: fields of the accessor, such as `min` and `max`.
        """
        view = self.add_bytes(count * COMPONENTS[kind] * SIZES[component])
        if target is not None:
            self.views[view]["target"] = target
        accessor = {"bufferView": view, "componentType": component, "count": count, "type": kind}
        self.accessors.append({**accessor, **more})
        return len(self.accessors) - 1

    def add_bytes(self, size: int) -> int:
        """Declares a view of `size` bytes that is no array, such as a picture's file; gives the view's number."""
        self.views.append({"buffer": 0, "byteOffset": self.length, "byteLength": size})
        self.length += size + -size % 4
        return len(self.views) - 1


def write_glb(path: Path, document: dict[str, Any], arrays: GlbArrays, parts: Iterable[bytes]) -> None:
    """Writes the file.

    Args:
        path: of it.
        document: what its JSON holds besides the arrays.
        arrays: as declared.
        parts: their bytes, one after the other, as they were declared.

    Raises:
        InputError: it would be larger than a GLB can be.
    """
    filled = {"asset": {"version": "2.0", "generator": "ss4d"}, **document}
    if arrays.length:  # glTF has no empty lists
        filled |= {
            "accessors": arrays.accessors,
            "bufferViews": arrays.views,
            "buffers": [{"byteLength": arrays.length}],
        }
    text = json.dumps(filled, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + arrays.length
    if total > MOST_BYTES:
        raise InputError(
            f"{path.name} would have {total:,} bytes, and no GLB can have 4 GiB: take fewer frames, or make them "
            "smaller (export.max_gaussians, mesh.faces, mesh.texture)"
        )
    with path.open("wb") as file:
        file.write(struct.pack("<III", MAGIC, VERSION, total))
        file.write(struct.pack("<II", len(text), JSON_CHUNK) + text)
        file.write(struct.pack("<II", arrays.length, BINARY_CHUNK))
        for part in parts:
            file.write(part + bytes(-len(part) % 4))
