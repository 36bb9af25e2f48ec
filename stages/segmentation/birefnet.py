"""BiRefNet: an alpha map (y, x) of what an image (y, x, RGB) shows, from its published ONNX file.

The file takes ImageNet-normalized images of one fixed size and gives logits (its card on the hub says both). Not run
with the published weights so far, only with small ones of the same kind.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.segmentation.alpha import clean_alpha
from ss4d.stages.segmentation.saliency_net import MEAN, STD, agreement
from ss4d.stages.types import Progress

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # of onnxruntime, the best that is there first


class Birefnet:
    """The network, ready to run.

    Args:
        weights: the ONNX file.

    Raises:
        ModelError: it is no ONNX file of such a network.
    """

    def __init__(self, weights: Path) -> None:
        import onnxruntime  # an extra

        there = onnxruntime.get_available_providers()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(weights), providers=[provider for provider in PROVIDERS if provider in there]
            )
            (given,), (self._output, *_) = self._session.get_inputs(), self._session.get_outputs()
            _, channels, height, width = given.shape
        except Exception as error:  # onnxruntime has a class for each cause and no common one
            raise ModelError(f"{weights} is not the ONNX file of BiRefNet: {str(error).splitlines()[0]}") from error
        if channels != 3 or not isinstance(height, int) or not isinstance(width, int):
            raise ModelError(f"{weights} takes {given.shape}, not images (1, 3, height, width) as BiRefNet does.")
        self._input, self._size = given.name, (width, height)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How surely each pixel of an image (h, w, 3) is the object, (h, w) from 0 to 1."""
        height, width = image.shape[:2]
        scaled = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        images = np.ascontiguousarray(((scaled - MEAN) / STD).transpose(2, 0, 1)[None])
        logits: NDArray[np.float32] = self._session.run([self._output.name], {self._input: images})[0][0, 0]
        return np.asarray(cv2.resize(1 / (1 + np.exp(-logits.clip(-40, 40))), (width, height)))


def birefnet_masks(net: Birefnet, frames: Tensor, progress: Progress) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) uint8 of frames (t, h, w, 3), and confidence (t,): how far from undecided the network is."""
    alpha, confidence = torch.zeros(frames.shape[:3], dtype=torch.uint8), torch.zeros(len(frames))
    for t, frame in enumerate(frames.numpy()):
        sure = net(frame)
        alpha[t] = torch.from_numpy(np.rint(sure * 255).astype(np.uint8))
        confidence[t] = agreement(sure, sure > 0.5)
        progress(t + 1, len(frames))
    return clean_alpha(alpha), confidence
