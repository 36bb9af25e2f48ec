"""Gaussians as compressed PLY files, the layout of PlayCanvas's editor SuperSplat: 16 bytes each, and 72 for every 256.

Files are y down, as PLY files are. A chunk is 256 Gaussians that lie together, the last one perhaps fewer; it has the
least and the largest of their centers, logarithms of scales and colors, and each Gaussian four words of 32 bits:

    position    x (11 bits, the highest), y (10), z (11), as shares of the chunk's range
    rotation    which of (w, x, y, z) is largest (2 bits), the others in order (10 each), from -sqrt(1/2) to sqrt(1/2)
    scale       as position
    color       red, green, blue (8 each), as shares of the chunk's range, and opacity (8)
"""

from pathlib import Path

import numpy as np

from ss4d.stages.export.packing import Floats, Words, in_space_order, smallest_three
from ss4d.stages.export.ply import FILTER_COMMENT, LEAST_SCALE
from ss4d.stages.export.scene import PLY_FROM_WORLD, Scene, write_frames
from ss4d.stages.types import GaussianClip, Progress

CHUNK = 256
RANGES = (
    *("min_x", "min_y", "min_z", "max_x", "max_y", "max_z"),
    *("min_scale_x", "min_scale_y", "min_scale_z", "max_scale_x", "max_scale_y", "max_scale_z"),
    *("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"),
)
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
MOST_LOG_SCALE = 20.0  # readers take no larger and no smaller ones
NARROWEST = 1e-5  # a range below this counts as a single value, as readers' own writers have it


def write_compressed_plys(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `compressed/frame0001.compressed.ply` and so on: a sequence that SuperSplat plays."""
    names = "compressed/frame{:04d}.compressed.ply"
    return write_frames(scene, folder, names, encode_compressed_ply, PLY_FROM_WORLD, progress)


def encode_compressed_ply(frame: GaussianClip) -> bytes:
    """One frame, y down already."""
    frame = in_space_order(frame)
    count = len(frame.means)
    logs = np.log(np.maximum(frame.scales.numpy(), LEAST_SCALE)).clip(-MOST_LOG_SCALE, MOST_LOG_SCALE)
    centers, center_ranges = _shares(frame.means.numpy())
    scales, scale_ranges = _shares(logs)
    colors, color_ranges = _shares(frame.colors.numpy())
    paint = np.concatenate([colors, frame.opacities.numpy()[:, None]], axis=1)
    words = (
        _packed(centers, (11, 10, 11)),
        _packed_rotations(frame.quats.numpy()),
        _packed(scales, (11, 10, 11)),
        _packed(paint, (8, 8, 8, 8)),
    )
    ranges = np.concatenate([center_ranges, scale_ranges, color_ranges], axis=1)
    header = ["ply", "format binary_little_endian 1.0", FILTER_COMMENT, f"element chunk {len(ranges)}"]
    header += [f"property float {name}" for name in RANGES]
    header += [f"element vertex {count}", *(f"property uint {name}" for name in WORDS), "end_header", ""]
    rows = np.stack(words, axis=-1)
    return "\n".join(header).encode("ascii") + ranges.astype("<f4").tobytes() + rows.astype("<u4").tobytes()


def _shares(values: Floats) -> tuple[Floats, Floats]:
    """Values (n, 3) as shares of their chunk's range, 0 to 1, and the ranges (chunks, 6), least values first."""
    count = len(values)
    padded = np.pad(values, ((0, -count % CHUNK), (0, 0)), mode="edge") if count else values
    chunks = padded.reshape(-1, CHUNK, 3)
    low, high = chunks.min(axis=1, keepdims=True), chunks.max(axis=1, keepdims=True)
    width = high - low
    shares = np.where(width < NARROWEST, 0, (chunks - low) / np.maximum(width, NARROWEST))
    return shares.reshape(-1, 3)[:count], np.concatenate([low, high], axis=2)[:, 0]


def _packed(shares: Floats, bits: tuple[int, ...]) -> Words:
    """Numbers (n, k) from 0 to 1 in a word each, the first in its highest bits."""
    words = np.zeros(len(shares), np.uint32)
    for column, width in enumerate(bits):
        steps = 2**width - 1
        words = words << np.uint32(width) | np.floor(shares[:, column].clip(0, 1) * steps + 0.5).astype(np.uint32)
    return words


def _packed_rotations(quats: Floats) -> Words:
    largest, others = smallest_three(quats)
    return largest << np.uint32(30) | _packed(others * np.float32(np.sqrt(0.5)) + np.float32(0.5), (10, 10, 10))
