"""U^2-Net's small model, u2netp: how strongly each pixel of an image (y, x) draws the eye, from the bundled file."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ss4d.stages.errors import ModelError

WEIGHTS = Path(__file__).with_name("u2netp.onnx")
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
SIDE = 320  # pixels: side of the views and of their maps
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, as is the next
STD = np.array([0.229, 0.224, 0.225], np.float32)
FAINT = 0.3  # a map whose strongest response is below this shows no object


class SaliencyNet:
    """The network, ready to run.

    Args:
        side: of the images that it is given, pixels. It was trained at 320.

    Raises:
        ModelError: the bundled file is missing or not the published one.
    """

    def __init__(self, side: int) -> None:
        try:
            weights = WEIGHTS.read_bytes()
        except OSError as error:
            raise ModelError(f"{WEIGHTS} cannot be read ({error.strerror}); install the package again.") from error
        found = hashlib.sha256(weights).hexdigest()
        if found != SHA256:
            raise ModelError(f"{WEIGHTS} has sha256 {found}, not {SHA256}; install the package again.")
        self._side = side
        self._net: Any = cv2.dnn.readNetFromONNX(np.frombuffer(weights, np.uint8))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Saliency (SIDE, SIDE) from 0 to 1 of an image (SIDE, SIDE, 3); all 0 where nothing stands out."""
        scaled = _resize(image, self._side).astype(np.float32) / max(int(image.max()), 1)
        self._net.setInput(np.ascontiguousarray(((scaled - MEAN) / STD).transpose(2, 0, 1)[None]))
        # The first of the seven outputs fuses the other six.
        response: NDArray[np.float32] = self._net.forward()[0, 0]
        low, high = response.min(), response.max()
        if high < FAINT:
            return np.zeros((SIDE, SIDE), np.float32)
        return np.asarray(cv2.resize((response - low) / (high - low), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (h, w, 3) as a view (SIDE, SIDE, 3), its aspect given up."""
    return _resize(image, SIDE)


def agreement(saliency: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """How well saliency and mask overlap (Dice), from 0 to 1; 0 for an empty mask."""
    return float(2 * saliency[mask].sum() / max(saliency.sum() + mask.sum(), 1))


def _resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.LANCZOS))
