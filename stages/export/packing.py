"""What several formats share: an order in space, rotations by their smaller entries, colors as light."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.types import GaussianClip

SH_C0 = 0.28209479177387814  # the constant spherical harmonic: color = 0.5 + SH_C0 f_dc
CELL_BITS = 10  # of each coordinate, for the order in space

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]


def in_space_order(frame: GaussianClip) -> GaussianClip:
    """A clip of one frame along a curve that fills space (Morton's): neighbors there pack into fewer bytes."""
    rows = _space_order(frame.means)
    return frame.chosen(rows, frame.offsets)


def smallest_three(quats: Floats) -> tuple[Words, Floats]:
    """Which entry of each quaternion (n, 4) is largest (n), and the others in order (n, 3), its sign made positive.

    They lie within sqrt(1/2) of 0, and the largest follows from them.
    """
    rows = np.arange(len(quats))
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12)
    largest = np.abs(unit).argmax(axis=1)
    unit = unit * np.where(unit[rows, largest] < 0, -1, 1)[:, None]
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest.astype(np.uint32), unit[rows[:, None], others]


def linear_light(colors: Tensor) -> Tensor:
    """The light that sRGB colors stand for, both 0 to 1: what glTF and USD take for the colors of points."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _space_order(means: Tensor) -> Tensor:
    """The rows (n) of points (n, 3) in order."""
    if not len(means):
        return torch.zeros(0, dtype=torch.int64)
    low, high = means.amin(0), means.amax(0)
    cells = ((means - low) / (high - low).clamp(min=1e-12) * (2**CELL_BITS - 1)).long()
    code = torch.zeros(len(means), dtype=torch.int64)
    for bit in range(CELL_BITS):
        for axis in range(3):
            code |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return code.argsort(stable=True)
