"""How strongly each pixel of an image (y, x) draws the eye, by the bundled u2netp."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load

from ss4d.stages.errors import ModelError
from ss4d.stages.segmentation.u2netp import U2NetP

WEIGHTS = Path(__file__).with_name("u2netp.safetensors")
SHA256 = "6a53c0cf19ce4766ff3be2313534f2c33783d94ff4d8e90772b28f77a4cc132d"
SIDE = 320  # pixels: side of the views and of their maps
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, as is the next
STD = np.array([0.229, 0.224, 0.225], np.float32)
FAINT = 0.3  # a map whose strongest response is below this shows no object


class SaliencyNet:
    """The network, ready to run.

    Raises:
        ModelError: the bundled file is missing or not the published one.
    """

    def __init__(self) -> None:
        try:
            weights = WEIGHTS.read_bytes()
        except OSError as error:
            raise ModelError(f"{WEIGHTS} cannot be read ({error.strerror}); install the package again.") from error
        found = hashlib.sha256(weights).hexdigest()
        if found != SHA256:
            raise ModelError(f"{WEIGHTS} has sha256 {found}, not {SHA256}; install the package again.")
        with torch.device("meta"):  # no values that the file's then replace
            self._net = U2NetP()
        self._net.load_state_dict(load(weights), strict=True, assign=True)
        self._net.eval()

    def __call__(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """Saliency (SIDE, SIDE) from 0 to 1 of an image (SIDE, SIDE, 3); all 0 where nothing stands out.

        Args:
            image: of any picture.
            side: in how many pixels the network is given it. It was trained at 320.
        """
        scaled = _resize(image, side).astype(np.float32) / max(int(image.max()), 1)
        normal = torch.from_numpy((scaled - MEAN) / STD)[None].permute(0, 3, 1, 2)  # channels stay last in memory
        with torch.inference_mode():
            response: NDArray[np.float32] = self._net(normal)[0].numpy()
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
