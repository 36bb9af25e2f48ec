"""One decoded picture of an input, and the limits that it is decoded within."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.errors import InputError

Pixels = NDArray[np.uint8]  # (h, w, 3 or 4), straight RGB or RGBA


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it is to be seen, perhaps smaller.

    Attributes:
        pixels: (h, w, 3 or 4).
        scale: pixels of the input, along a side, that one of these stands for; 1 where nothing was reduced.
    """

    pixels: Pixels
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large pictures may be.

    Attributes:
        side: the longer side of a picture that is given, pixels; larger ones are reduced while they are read. None: as
            they are.
        max_pixels: of a picture that is decoded.
    """

    side: int | None = None
    max_pixels: int

    def check(self, name: str, width: int, height: int) -> None:
        """Raises InputError for a picture that would take too much memory only to be decoded."""
        if width * height > self.max_pixels:
            raise InputError(
                f"{name} has {width} x {height} pixels, more than the {self.max_pixels:,} of input.max_pixels; raise "
                "that, or give a smaller picture."
            )

    def reduced(self, width: int, height: int) -> tuple[int, int]:
        """The size that a picture of this size is given in."""
        longer = max(width, height)
        if self.side is None or longer <= self.side:
            return width, height
        return max(1, round(width * self.side / longer)), max(1, round(height * self.side / longer))
