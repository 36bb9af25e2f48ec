"""How far colors are apart, in levels of 8 bit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def apart(colors: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """The largest difference of any channel between colors (..., 3) and others that broadcast to them, not both uint8.

    As `np.abs(colors - others).max(-1)`, which takes five times as long.
    """
    red, green, blue = np.moveaxis(np.abs(colors - others), -1, 0)
    largest: NDArray[Any] = np.maximum(np.maximum(red, green), blue)
    return largest
