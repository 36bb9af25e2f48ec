"""Gaussians as SPZ files, version 3: a header and bytes in columns, all of it compressed with gzip.

Files are y up: world (x, y, z) is written as (x, z, -y). Columns follow each other: centers as fixed-point numbers of
24 bits, opacities (8 bits), colors (3 x 8), scales as logarithms (3 x 8), rotations as the three smaller of
(x, y, z, w) (sign and 9 bits each). Browsers can decompress gzip themselves, which is why this is not version 4.
"""

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.export.packing import SH_C0, Floats, in_space_order, smallest_three
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene, write_frames
from ss4d.stages.types import GaussianClip, Progress

MAGIC, VERSION = 0x5053474E, 3
FRACTION_BITS = 12  # of a center's coordinate, so that it is off by 1.2e-4 at most
ANTIALIASED = 1  # the flag of a model that is drawn with the mip filter
COLOR_SCALE = 0.15  # of f_dc
LEAST_LOG_SCALE, SCALE_STEPS = -10.0, 16.0  # of the byte 0, and bytes to a unit
LEVEL = 6  # of gzip; 9 takes four times as long for 1 % less


def write_spzs(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `spz/frame0001.spz` and so on."""
    return write_frames(scene, folder, "spz/frame{:04d}.spz", encode_spz, GL_FROM_WORLD, progress)


def encode_spz(frame: GaussianClip) -> bytes:
    """One frame, y up already."""
    frame = in_space_order(frame)
    header = struct.pack("<IIIBBBB", MAGIC, VERSION, len(frame.means), 0, FRACTION_BITS, ANTIALIASED, 0)
    logs = np.log(np.maximum(frame.scales.numpy(), math.exp(LEAST_LOG_SCALE)))
    harmonics = (frame.colors.numpy() - 0.5) / SH_C0
    columns = (
        _fixed_point(frame.means.numpy()),
        _bytes(frame.opacities.numpy() * 255),
        _bytes(harmonics * COLOR_SCALE * 255 + 127.5),
        _bytes((logs - LEAST_LOG_SCALE) * SCALE_STEPS),
        _rotations(frame.quats.numpy()),
    )
    return gzip.compress(header + b"".join(columns), LEVEL, mtime=0)


def _fixed_point(means: Floats) -> bytes:
    largest = 2**23 - 1
    whole = np.rint(means.astype(np.float64) * 2**FRACTION_BITS).clip(-largest, largest).astype("<i4")
    return np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 3, 4)[:, :, :3].tobytes()


def _bytes(values: NDArray[np.floating[Any]]) -> bytes:
    whole: NDArray[np.uint8] = np.rint(values).clip(0, 255).astype(np.uint8)
    return whole.tobytes()


def _rotations(quats: Floats) -> bytes:
    largest, others = smallest_three(np.roll(quats, -1, axis=1))  # (w, x, y, z) to (x, y, z, w)
    words = largest
    for column in others.T:
        size = np.rint(np.abs(column) * math.sqrt(2) * 511).clip(0, 511).astype(np.uint32)
        words = words << np.uint32(10) | (column < 0).astype(np.uint32) << np.uint32(9) | size
    return words.astype("<u4").tobytes()
