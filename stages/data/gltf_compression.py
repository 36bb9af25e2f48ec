"""Unpacks what glTF files compress, each kind by a package of the extra `assets`: Draco, meshopt and KTX2.

Axes: v vertex; images are (row, column).
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.errors import InputError
from ss4d.stages.extras import how_to_install

DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
KTX2_HEAD = b"\xabKTX 20\xbb\r\n\x1a\n"
BYTES_PER_NUMBER = 4
MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")


class DracoMesh:
    """A primitive's arrays out of Draco's data.

    Args:
        data: as it is stored.
        name: the file and the part, for sentences.
        max_numbers: that one array may have.

    Raises:
        InputError: if the data is damaged or the package is not there.
    """

    def __init__(self, data: bytes, name: str, max_numbers: int) -> None:
        self._name = name
        package = _package("DracoPy", DRACO, name)
        try:
            self._mesh = package.decode(data)
        except Exception as error:  # the package has no common class for what it raises
            raise _damaged(name, DRACO, error) from error
        if len(self._mesh.points) * 3 > max_numbers:
            raise InputError(
                f"{name} has {len(self._mesh.points):,} vertices, over the limit of {max_numbers:,} numbers "
                "(max_numbers); give a simpler file."
            )

    def indices(self) -> NDArray[Any]:
        """Vertices of the faces, one after the other, (3 f, 1)."""
        return np.asarray(getattr(self._mesh, "faces", ()), np.uint32).reshape(-1, 1)

    def attribute(self, number: Any, attribute: str) -> NDArray[Any]:
        """The numbers (v, n) of the attribute that Draco numbers so."""
        found = [held["data"] for held in self._mesh.attributes if held["unique_id"] == number]
        if not found:
            raise InputError(f"{self._name} has no {attribute} in its {DRACO}; it is damaged: export it again.")
        values = np.asarray(found[0])
        return values.reshape(len(values), -1)


def decoded_view(data: bytes, packed: dict[str, Any], max_numbers: int, name: str) -> bytes:
    """The bytes of a buffer view that meshopt packed.

    Args:
        data: as they are stored.
        packed: the extension's own values: count, byteStride, mode and filter.
        max_numbers: of 4 bytes that it may become.
        name: the file and the part, for sentences.

    Raises:
        InputError: if the data is damaged or the package is not there.
    """
    package = _package("meshopt", MESHOPT[0], name)
    count, stride, mode = packed.get("count"), packed.get("byteStride"), packed.get("mode")
    if not isinstance(count, int) or not isinstance(stride, int) or mode not in MODES or min(count, stride) < 1:
        raise InputError(f"{name} says {count}, {stride}, {mode} of its compression; it is damaged: export it again.")
    if count * stride > max_numbers * BYTES_PER_NUMBER:
        raise InputError(f"{name} would become {count * stride:,} bytes, more than max_numbers; give a simpler file.")
    try:
        decoded = package.decode_gltf_buffer(data, count, stride, mode, packed.get("filter"))
    except Exception as error:  # nor has this one
        raise _damaged(name, MESHOPT[0], error) from error
    return np.ascontiguousarray(decoded).tobytes()


def read_ktx2(data: bytes, max_pixels: int, name: str) -> NDArray[np.uint8]:
    """A Basis Universal texture's largest image (h, w, 4).

    Raises:
        InputError: if it has more pixels, is damaged or of another kind, or the package is not there.
    """
    package = _package("opengl_basisu", "KHR_texture_basisu", name)
    try:
        opened = package.open(data)
        if opened.width * opened.height <= max_pixels:
            return np.array(opened.transcode("rgba8").data, np.uint8)
    except Exception as error:
        raise _damaged(name, "KHR_texture_basisu", error) from error
    raise InputError(
        f"{name} has {opened.width} x {opened.height} pixels, over the limit of {max_pixels:,} (max_texture); make it "
        "smaller."
    )


def is_installed(module: str) -> bool:
    """Whether a package of the extra is there."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _package(module: str, extension: str, name: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{name} is compressed with {extension}: {how_to_install('assets')} reads it, or save it uncompressed."
        ) from error


def _damaged(name: str, extension: str, error: Exception) -> InputError:
    return InputError(f"{name} is damaged: its {extension} cannot be read ({error}); export it again.")
