"""The segmentation stage: frames (t, y, x, color) to the object alone, cropped; chooses the method, and says so."""

import logging
from typing import Literal

import torch
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.segmentation.alpha import alpha_masks, has_alpha
from ss4d.stages.segmentation.color_key import UNIFORM, color_key_masks, find_key
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.crop import crop_clip
from ss4d.stages.segmentation.masks import ObjectTracker
from ss4d.stages.segmentation.saliency import saliency_masks
from ss4d.stages.types import Clip, Progress, Video, silent

LOG = logging.getLogger("ss4d")
NAMES = {"alpha": "alpha of the input", "color_key": "color key", "saliency": "saliency (u2netp + GrabCut)"}
LEAST = 0.0002  # share of a frame the object must cover to count as seen

Method = Literal["alpha", "color_key", "saliency"]


def segment(config: SegmentationConfig, video: Video, *, progress: Progress = silent) -> Clip:
    """Cut the object out of every frame and crop the clip to it (docs/model.md, section 2).

    Without a box or point everything that stands out is taken for the object; with one, only what is connected to it.
    Frames in which the object is not seen get no alpha and a warning in the log.

    Args:
        config: method and hints.
        video: frames (t, h, w, 3 or 4) uint8.
        progress: told after each step of the method.

    Returns:
        The clip at `config.size`; `method` says how it was found.

    Raises:
        InputError: no frame shows an object, `alpha` was asked for and there is none, or a hint lies outside.
        ModelError: the bundled saliency network is missing or damaged.
    """
    frames = video.frames
    tracker = _tracker(config, frames, video.scale)
    method = config.method if config.method != "auto" else _choose(frames)
    rgb = frames[..., :3].contiguous()
    if method == "alpha":
        if not has_alpha(frames):
            raise InputError("The input has no alpha that hides anything; choose another segmentation method or auto.")
        alpha, confidence = alpha_masks(frames)
    elif method == "color_key":
        alpha, confidence = color_key_masks(rgb)
    else:
        alpha, confidence = saliency_masks(rgb, tracker, progress)
    if tracker and method != "saliency":
        alpha = torch.stack([torch.from_numpy(tracker.keep(frame)) for frame in alpha.numpy()])
    confidence = _check_seen(alpha, confidence, method)
    seen = confidence > 0
    LOG.info("segmentation: %s, confidence %.2f", NAMES[method], float(confidence[seen].mean()))
    cropped, opacity, crop = crop_clip(torch.cat([rgb, alpha[..., None]], dim=-1), config.size)
    progress(1, 1)
    crop = torch.round(crop * video.scale).long()
    return Clip(rgb=cropped, alpha=opacity, crop=crop, confidence=confidence, method=method, fps=video.fps)


def _choose(frames: Tensor) -> Method:
    if has_alpha(frames):
        return "alpha"
    return "color_key" if find_key(frames[..., :3])[1] >= UNIFORM else "saliency"


def _tracker(config: SegmentationConfig, frames: Tensor, scale: float) -> ObjectTracker | None:
    """What follows the object that the user pointed at, in pixels of the input; None if he did not."""
    if config.box is None and config.point is None:
        return None
    height, width = (round(side * scale) for side in frames.shape[1:3])
    if config.point is not None and not (config.point[0] < width and config.point[1] < height):
        raise InputError(f"segmentation.point {config.point} lies outside the frames of {width} x {height} pixels.")
    if config.box is not None:
        left, top, right, bottom = config.box
        if not (left < right <= width and top < bottom <= height):
            raise InputError(
                f"segmentation.box {config.box} must have left < right <= {width} and top < bottom <= {height}."
            )
    box, point = config.box, config.point
    if box is not None:
        box = round(box[0] / scale), round(box[1] / scale), round(box[2] / scale), round(box[3] / scale)
    if point is not None:
        point = int(point[0] / scale), int(point[1] / scale)
    return ObjectTracker((frames.shape[1], frames.shape[2]), box, point)


def _check_seen(alpha: Tensor, confidence: Tensor, method: Method) -> Tensor:
    """Empty the frames that hold next to nothing, warn of them, and return the confidence with 0 there."""
    covered = (alpha > 0).flatten(1).float().mean(1)
    missing = covered == 0 if method == "alpha" else covered < LEAST
    alpha[missing] = 0
    if missing.all() and method == "alpha":
        raise InputError(f"All {len(alpha)} frames are fully transparent; give a clip whose alpha shows an object.")
    if missing.all():
        raise InputError(
            f"No foreground was found in any of {len(alpha)} frames by {NAMES[method]}; give a clip that shows an "
            "object, frames with alpha, or point at it with segmentation.box or segmentation.point."
        )
    if missing.any():
        LOG.warning("segmentation: the object is not seen in frames %s", missing.nonzero().flatten().tolist())
    return torch.where(missing, 0.0, confidence)
