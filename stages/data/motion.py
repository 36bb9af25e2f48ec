"""How much an object moves, and how much of its clip's space it fills at a time.

Axes: t frame, v vertex.
"""

import numpy as np
from numpy.typing import NDArray

LEAST_WAY = 0.01  # of the object's size, which some point must come from where it is on average, for it to move


def motion(points: NDArray[np.floating], of: float | None = None) -> float:
    """How much points (t, v, 3) move, as a share of `of`, by default the size of the box that holds them all the time.

    The root of the mean square, over points, of how far each comes from where it is on average: a part that moves
    far counts more than a whole that trembles. 0 for an object that stands still.
    """
    if points.shape[0] * points.shape[1] == 0:
        return 0.0
    return float(np.sqrt((_ways(points) ** 2).mean())) / (size(points) if of is None else of)


def moves(points: NDArray[np.floating]) -> bool:
    """Whether any of points (t, v, 3) moves, be it a small part of the whole, so that it can be seen."""
    return points.shape[0] * points.shape[1] > 0 and bool(_ways(points).max() > LEAST_WAY * size(points))


def _ways(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far each of points (t, v, 3) comes from where it is on average, (v,)."""
    far = np.zeros(points.shape[1])
    middle = points.mean(0, dtype=np.float64)
    for frame in points:
        far = np.maximum(far, np.linalg.norm(frame - middle, axis=-1))
    return far


def fill(points: NDArray[np.floating]) -> float:
    """How large the box around points (t, v, 3) is in a frame, on average, as a share of that around all frames."""
    if points.shape[0] * points.shape[1] == 0:
        return 0.0
    return float(np.mean([np.ptp(frame, axis=0).max() for frame in points])) / size(points)


def size(points: NDArray[np.floating]) -> float:
    """The longest side of the box around points (..., 3); never 0."""
    flat = points.reshape(-1, 3)
    return max(float((flat.max(0) - flat.min(0)).max()), 1e-30)
