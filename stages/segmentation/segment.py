"""The segmentation stage: frames (t, y, x, color) to the object alone, cropped; chooses the method, and says so."""

import logging
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.segmentation.alpha import clean_alpha, has_alpha, hidden_share, is_matte
from ss4d.stages.segmentation.color_key import UNIFORM, color_key_masks, find_key
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.cut import (
    NAMES,
    Method,
    covered_share,
    cut_out,
    followed_by,
    main_subject,
    named,
    tracker_of,
)
from ss4d.stages.segmentation.field import field_box
from ss4d.stages.segmentation.masks import ObjectTracker
from ss4d.stages.segmentation.saliency import saliency_masks
from ss4d.stages.types import Clip, Progress, Video, silent

LOG = logging.getLogger("ss4d")
WHOLE = 0.95  # an object that fills more of the frame than this is a background that was not found
NOT_FOUND = 0.2  # confidence of such a frame, at most


def segment(
    config: SegmentationConfig,
    video: Video,
    *,
    masks: Tensor | None = None,
    finer: Iterable[NDArray[np.uint8]] | None = None,
    progress: Progress = silent,
) -> Clip:
    """Cut the object out of every frame and crop the clip to it (docs/model.md, section 2).

    With masks or alpha, all that they show is the object. Else it is what stands out, the largest if several things do;
    with a box or point, only what is connected to that. Frames in which the object is not seen get no alpha and a
    warning in the log; so do frames of low confidence.

    Args:
        config: method and hints.
        video: frames (t, h, w, 3 or 4) uint8.
        masks: the user's own, (t, h, w) uint8, 255 on the object.
        finer: the same frames with more pixels, one after the other, to crop; None: those of `video` are.
        progress: told after each step of the method.

    Returns:
        The clip at `config.size`; `method` says how it was found.

    Raises:
        InputError: no frame shows an object, `alpha` was asked for and there is none, or a hint lies outside.
        ModelError: the bundled saliency network is missing or damaged.
    """
    frames, rgb = video.frames, video.frames[..., :3]
    tracker = tracker_of(config, video)
    method: Method = "mask" if masks is not None else _method(config, frames)
    if masks is not None:
        alpha, confidence = masks.clone(), torch.ones(len(masks))
    elif method == "alpha":
        alpha, confidence = _by_alpha(frames, tracker, progress)
    else:
        alpha, confidence = _by_looks(rgb, method, tracker, progress)
    if tracker and method != "saliency":
        alpha = followed_by(alpha, tracker)
    return cut_out(config, video, alpha, confidence, method, finer, progress)


def _method(config: SegmentationConfig, frames: Tensor) -> Method:
    if config.method == "alpha" and not has_alpha(frames):
        raise InputError("The input has no alpha that hides anything; choose another segmentation method or auto.")
    if config.method != "auto":
        return config.method
    if has_alpha(frames):
        if is_matte(frames[..., 3]):
            return "alpha"
        LOG.warning(
            "segmentation: the input's alpha hides %.1f %% of its frames, and shows the rest as it is: it is not taken "
            "for a mask; segmentation.method=alpha does so",
            100 * float(hidden_share(frames[..., 3]).mean()),
        )
    return _looks(frames[..., :3])


def _looks(rgb: Tensor) -> Method:
    picture = _inside(rgb, field_box(rgb))
    plain = find_key(picture)[1] >= UNIFORM or all(find_key(frame[None])[1] >= UNIFORM for frame in picture)
    return "color_key" if plain else "saliency"


def _inside(frames: Tensor, box: tuple[int, int, int, int] | None) -> Tensor:
    return frames if box is None else frames[:, box[1] : box[3], box[0] : box[2]]


def _by_alpha(frames: Tensor, tracker: ObjectTracker | None, progress: Progress) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) and confidence (t,) of frames with alpha; of some that have none among them, by their looks."""
    alpha, confidence = clean_alpha(frames[..., 3]), torch.ones(len(frames))
    bare = hidden_share(frames[..., 3]) == 0
    if bare.any():
        rgb = frames[bare][..., :3]
        method = _looks(rgb)
        LOG.warning("segmentation: alpha hides nothing in %s; %s instead", named(bare), NAMES[method])
        alpha[bare], confidence[bare] = _by_looks(rgb, method, tracker, progress)
    return alpha, confidence


def _by_looks(rgb: Tensor, method: Method, tracker: ObjectTracker | None, progress: Progress) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) and confidence (t,) of what stands out in frames (t, h, w, 3), bars around the picture aside."""
    box = None if tracker else field_box(rgb)
    inner = _inside(rgb, box)
    if method == "color_key":
        found, confidence = color_key_masks(inner)
    else:
        found, confidence = saliency_masks(inner, tracker, progress)
    if tracker is None:
        found, confidence = main_subject(found, inner, confidence)
    whole = covered_share(found) > WHOLE
    confidence = torch.where(whole, confidence.clamp(max=NOT_FOUND), confidence)
    alpha = torch.zeros(rgb.shape[:3], dtype=torch.uint8)
    _inside(alpha, box).copy_(found)
    return alpha, confidence
