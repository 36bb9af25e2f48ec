"""The empty background behind a still camera: images (t, y, x, color) without the object that moves before them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.segmentation.levels import apart

SAMPLES = 32  # frames that vote; more only take time
FEWEST = 3  # frames that must show a pixel of the background for it to be known
STILL = 6.0  # levels: a camera whose background differs more than this from its median is moving


@dataclass(frozen=True, eq=False)
class CleanPlate:
    """The background's color where it is known, and how much a still pixel flickers, in levels."""

    color: NDArray[np.int16]
    known: NDArray[np.bool_]
    noise: float

    def differs(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where an image (h, w, 3) shows the background for certain, and where it hides it."""
        difference = apart(image, self.color)
        return (
            self.known & (difference < 2 * self.noise + 4),
            self.known & (difference > 4 * self.noise + 16),
        )


def clean_plate(images: NDArray[np.uint8], near: NDArray[np.bool_]) -> CleanPlate | None:
    """The median color of each pixel over the frames in which no object is near; None when the camera moves.

    Args:
        images: (t, h, w, 3).
        near: (t, h, w), true on the object and around it.
    """
    stride = -(-len(images) // SAMPLES)
    images, near = images[::stride], near[::stride]
    count = (~near).sum(0)
    # Hidden samples sort behind all others, so the median of the rest lies at half their number.
    ordered = np.sort(np.where(near[..., None], 256, images.astype(np.int16)), axis=0)
    middle = np.maximum(count - 1, 0)[None, ..., None] // 2
    color = np.take_along_axis(ordered, np.broadcast_to(middle, (1, *images.shape[1:])), axis=0)[0]
    known = count >= FEWEST
    seen = known & ~near
    if not seen.any():
        return None
    # Upper half of the differences too: a flat sky must not hide that the ground moves.
    noise = float(np.percentile(apart(images, color)[seen], 75))
    return CleanPlate(color, known, noise) if noise <= STILL else None
