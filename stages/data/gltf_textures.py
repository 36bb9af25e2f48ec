"""Textures of glTF files: which image one shows, how that is decoded, and its colors at texture coordinates.

Axes: v vertex; images are (row, column), the first row at coordinate 0.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ss4d.stages.data.gltf_compression import KTX2_HEAD, read_ktx2
from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.gltf_references import printable
from ss4d.stages.data.surface import Doubles
from ss4d.stages.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")  # of textures; another decoder of the library may start a program
MOST_DECODED = 8  # textures of the largest size in a file, or more that are smaller
# Extensions that give a texture another image than its own.
IMAGES = ("EXT_texture_webp", "EXT_texture_avif", "KHR_texture_basisu")
NEAREST = 9728
CLAMP, MIRROR = 33071, 33648  # any other wrapping repeats
_STEPS = np.arange(256) / 255
LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4)  # of an sRGB byte


class Images:
    """A file's images, each decoded once for all primitives in a row that show it."""

    def __init__(self, file: GltfFile) -> None:
        self._file = file
        self._held: dict[int, NDArray[np.uint8]] = {}
        self._decoded = 0  # pixels so far

    def get(self, index: int) -> NDArray[np.uint8]:
        """An image (h, w, 4) as stored: sRGB with straight alpha, 0 to 255.

        Raises:
            InputError: if it cannot be read, or the file's images have too many pixels in all.
        """
        if index not in self._held:
            self._held[index] = _decoded(self._file, index)
            self._decoded += self._held[index].shape[0] * self._held[index].shape[1]
            most = MOST_DECODED * self._file.limits.max_texture
            if self._decoded > most:
                raise InputError(
                    f"{self._file.path}: its textures have more than {most:,} pixels in all, {MOST_DECODED} times the "
                    "limit of one (max_texture); make them smaller."
                )
        return self._held[index]

    def keep(self, wanted: tuple[int, ...]) -> None:
        """Forgets all others: together they can be far larger than the file."""
        self._held = {index: image for index, image in self._held.items() if index in wanted}


@dataclass(frozen=True)
class Texture:
    """How a material shows an image.

    Attributes:
        image: its number in the file.
        coordinates: the attribute with its texture coordinates.
        transform: (2, 3) from those to the ones in the image.
        wrap: codes of what lies beside the image along u and v.
        nearest: whether pixels are seen as squares.
    """

    image: int
    coordinates: str
    transform: Doubles
    wrap: tuple[int, int]
    nearest: bool

    def places(self, coordinates: Doubles) -> Doubles:
        """Texture coordinates (v, 2), transformed."""
        return np.asarray(coordinates @ self.transform[:, :2].T + self.transform[:, 2])

    def colors(self, image: NDArray[np.uint8], places: Doubles) -> Doubles:
        """Linear RGB and alpha (v, 4), 0 to 1, between the pixels; RGB of pixels that are clear does not count."""
        height, width = image.shape[:2]
        x, y = places[:, 0] * width, places[:, 1] * height
        if self.nearest:
            return self._pixels(image, np.floor(y), np.floor(x))
        left, top = np.floor(x - 0.5), np.floor(y - 0.5)
        u, v = x - 0.5 - left, y - 0.5 - top
        total, plain, alpha = np.zeros((len(x), 3)), np.zeros((len(x), 3)), np.zeros(len(x))
        for row, down in ((top, 1 - v), (top + 1, v)):
            for column, across in ((left, 1 - u), (left + 1, u)):
                pixel, weight = self._pixels(image, row, column), down * across
                plain += weight[:, None] * pixel[:, :3]
                total += (weight * pixel[:, 3])[:, None] * pixel[:, :3]
                alpha += weight * pixel[:, 3]
        seen = np.where(alpha[:, None] > 1e-6, total / np.maximum(alpha, 1e-6)[:, None], plain)
        return np.concatenate((seen, alpha[:, None]), axis=1)

    def _pixels(self, image: NDArray[np.uint8], row: Doubles, column: Doubles) -> Doubles:
        found = image[_wrapped(row, image.shape[0], self.wrap[1]), _wrapped(column, image.shape[1], self.wrap[0])]
        return np.concatenate((LINEAR[found[:, :3]], found[:, 3:] / 255), axis=1)


def texture(file: GltfFile, info: dict[str, Any] | None) -> Texture | None:
    """The texture that a material's `info` (its index, texCoord and extensions) names; None without one.

    Raises:
        InputError: for a texture without an image.
    """
    if info is None:
        return None
    held = file.gltf.textures[info["index"]]
    named = {name: held_in.get("source") for name, held_in in (held.extensions or {}).items() if name in IMAGES}
    sources = [named.get("EXT_texture_webp"), named.get("EXT_texture_avif"), held.source]
    # A file for readers of all ages holds a plain image, too, which needs no package.
    source = next((number for number in (*sources, named.get("KHR_texture_basisu")) if number is not None), None)
    if source is None:
        raise InputError(
            f"{file.path}: texture {info['index']} has no image that is read here (its extensions: "
            f"{printable(', '.join(held.extensions or {})) or 'none'}); save it with PNG, JPEG or WebP images."
        )
    change = (info.get("extensions") or {}).get("KHR_texture_transform", {})
    number = change.get("texCoord", info.get("texCoord") or 0)
    sampler = file.gltf.samplers[held.sampler] if held.sampler is not None else None
    return Texture(
        image=source,
        coordinates=f"TEXCOORD_{number}",
        transform=_transform(change),
        wrap=(sampler.wrapS or 0, sampler.wrapT or 0) if sampler else (0, 0),
        nearest=sampler is not None and sampler.magFilter == NEAREST,
    )


def _transform(change: dict[str, Any]) -> Doubles:
    """KHR_texture_transform as a matrix (2, 3)."""
    angle = change.get("rotation", 0.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scaled = turn * np.asarray(change.get("scale", (1.0, 1.0)), np.float64)
    return np.concatenate((scaled, np.reshape(change.get("offset", (0.0, 0.0)), (2, 1))), axis=1)


def _wrapped(index: Doubles, size: int, code: int) -> NDArray[np.int64]:
    """Pixel numbers, any, to those in an image of `size` pixels."""
    whole = index.astype(np.int64)
    if code == CLAMP:
        return np.clip(whole, 0, size - 1)
    if code == MIRROR:
        whole = whole % (2 * size)
        return np.minimum(whole, 2 * size - 1 - whole)
    return whole % size


def _decoded(file: GltfFile, index: int) -> NDArray[np.uint8]:
    data = file.image_data(index)
    if data.startswith(KTX2_HEAD):
        return read_ktx2(data, file.limits.max_texture, f"{file.path}: image {index}")
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
        check_size(file, index, opened.width, opened.height)
        if opened.mode.startswith("I"):  # 16 bits of gray, which the library would cut off at 255
            gray = (np.asarray(opened).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.dstack((gray, gray, gray, np.full_like(gray, 255)))
        return np.asarray(opened.convert("RGBA"))
    except UnidentifiedImageError as error:
        raise InputError(
            f"{file.path}: image {index} cannot be read: it is of no kind that textures have; save it as PNG, JPEG or "
            "WebP."
        ) from error
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file.path}: image {index} cannot be read: {error}; save it anew.") from error


def check_size(file: GltfFile, index: int, width: int, height: int) -> None:
    """Raises InputError for an image with too many pixels."""
    if width * height > file.limits.max_texture:
        raise InputError(
            f"{file.path}: image {index} has {width} x {height} pixels, over the limit of "
            f"{file.limits.max_texture:,} (max_texture); make it smaller."
        )
