"""GrabCut without random numbers: a mask (y, x) moved to the color edges of its image."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COMPONENTS = 5  # Gaussians in each color model, fixed by OpenCV


def grabcut(image: NDArray[np.uint8], trimap: NDArray[np.uint8], iterations: int) -> NDArray[np.bool_]:
    """The foreground of an image (h, w, 3), given OpenCV's four labels (h, w) as a first guess.

    OpenCV starts its color models by k-means with the process's random numbers. Here they start from the colors'
    principal axis and OpenCV only refines them (`GC_EVAL`): the same image gives the same mask, no seed is touched.
    """
    guess = _is_foreground(trimap)
    if min(guess.sum(), (~guess).sum()) < 2 * COMPONENTS:  # too few colors to model
        return guess
    background, foreground = _color_model(image[~guess]), _color_model(image[guess])
    labels, _, _ = cv2.grabCut(image, trimap.copy(), (0, 0, 1, 1), background, foreground, iterations, cv2.GC_EVAL)
    return _is_foreground(np.asarray(labels))


def _is_foreground(labels: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _color_model(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A mixture in OpenCV's layout (1, 65): weights, means, covariances of equal parts along the principal axis."""
    values = colors.astype(np.float64)
    _, axes = np.linalg.eigh(np.cov(values.T))
    order = np.argsort(values @ axes[:, -1], kind="stable")
    parts = [values[part] for part in np.array_split(order, COMPONENTS)]
    weights = [len(part) / len(values) for part in parts]
    means = [part.mean(0) for part in parts]
    # A flat color has no spread, and OpenCV refuses a singular covariance.
    covariances = [np.cov(part.T) + 0.01 * np.eye(3) for part in parts]
    return np.concatenate([weights, np.ravel(means), np.ravel(covariances)])[None]
