"""Frames of colored shapes over backgrounds, for what finds objects in them."""

import cv2
import numpy as np
import torch

from ss4d.stages.types import Video

SIZE = 120


def disc(x: float, y: float, radius: float = 25) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def texture(seed: int = 0) -> np.ndarray:
    """Soft green and brown patches."""
    noise = np.random.default_rng(seed).uniform(0, 1, (SIZE, SIZE)).astype(np.float32)
    share = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 1, cv2.NORM_MINMAX)[..., None]
    return (share * np.float32([60, 110, 50]) + (1 - share) * np.float32([110, 95, 60])).astype(np.uint8)


def draw(background: np.ndarray, masks: list[np.ndarray], colors: list[tuple[int, int, int]]) -> np.ndarray:
    image = background.copy()
    for mask, color in zip(masks, colors, strict=True):
        image[mask] = color
    return image


def video(frames: list[np.ndarray]) -> Video:
    return Video(frames=torch.from_numpy(np.stack(frames)), fps=12.0)


def source_mask(clip_alpha: torch.Tensor, crop: torch.Tensor) -> np.ndarray:
    """The clip's alpha (s, s) put back into a frame of SIZE."""
    left, top, right, bottom = crop.tolist()
    back = cv2.resize(clip_alpha.numpy(), (right - left, bottom - top), interpolation=cv2.INTER_AREA) > 127
    padded = np.zeros((3 * SIZE, 3 * SIZE), bool)
    padded[SIZE + top : SIZE + bottom, SIZE + left : SIZE + right] = back
    return padded[SIZE : 2 * SIZE, SIZE : 2 * SIZE]


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())
