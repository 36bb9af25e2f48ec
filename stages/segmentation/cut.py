"""What all ways to find the object have in common: hints, the main subject, empty frames, and the cut out clip.

Frames are (t, y, x, color), alpha is (t, y, x).
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.segmentation.config import CropConfig
from ss4d.stages.segmentation.crop import crop_frames
from ss4d.stages.segmentation.marks import without_marks
from ss4d.stages.segmentation.masks import Hint, ObjectTracker, largest_subject
from ss4d.stages.types import Clip, Progress, Video

LOG = logging.getLogger("ss4d")
NAMES = {
    "mask": "masks of the user",
    "alpha": "alpha of the input",
    "color_key": "color key",
    "saliency": "saliency (u2netp + GrabCut)",
    "birefnet": "BiRefNet",
    "sam2": "SAM 2",
}
LEAST = 0.0002  # share of a frame the object must cover to count as seen
HARDLY = 0.03  # of the area that it has in most frames; what is left of it in less is no object
CONFIDENT = 0.6  # below this a frame is warned of

Method = Literal["mask", "alpha", "color_key", "saliency", "birefnet", "sam2"]


def hint_of(config: CropConfig, video: Video) -> Hint | None:
    """What the user points at, in pixels of the frames, which they tell in pixels of the input."""
    if config.box is None and config.point is None:
        return None
    shape, scale = (video.frames.shape[1], video.frames.shape[2]), video.scale
    height, width = (round(side * scale) for side in shape)
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
    return Hint(shape, box, point)


def tracker_of(config: CropConfig, video: Video) -> ObjectTracker | None:
    """What follows the object that the user pointed at; None if they did not."""
    hint = hint_of(config, video)
    return None if hint is None else ObjectTracker(hint.shape, hint.box, hint.point)


def followed_by(alpha: Tensor, tracker: ObjectTracker) -> Tensor:
    return torch.stack([torch.from_numpy(tracker.keep(frame)) for frame in alpha.numpy()])


def main_subject(found: Tensor, rgb: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) of the largest of the things that stand out, without marks, and the confidence (t,) in it."""
    unmarked, sure = without_marks(found.numpy(), rgb.numpy())
    if sure is not None:
        confidence = confidence.clamp(max=sure)
        LOG.warning(
            "segmentation: what stays where it is beside the object, such as a watermark, is left out; "
            "segmentation.box=[left, top, right, bottom] in the first frame, or --mask, chooses otherwise"
        )
    largest, count = largest_subject(unmarked)
    if count > 1:
        LOG.warning(
            "segmentation: %d objects stand out, and the largest is kept; segmentation.point=[x, y] or "
            "segmentation.box=[left, top, right, bottom] in the first frame chooses another",
            count,
        )
    return torch.from_numpy(largest), confidence


def cut_out(
    config: CropConfig,
    video: Video,
    alpha: Tensor,
    confidence: Tensor,
    method: Method,
    finer: Iterable[NDArray[np.uint8]] | None,
    progress: Progress,
) -> Clip:
    """The clip of what alpha (t, h, w) shows, frames without the object empty."""
    confidence = _check_seen(alpha, confidence, method)
    seen = confidence > 0
    LOG.info("segmentation: %s, confidence %.2f", NAMES[method], float(confidence[seen].mean()))
    colors = video.frames[..., :3].numpy() if finer is None else finer
    cropped, opacity, crop = crop_frames(colors, alpha, config.size)
    crop = torch.round(crop * video.scale).long()
    progress(1, 1)
    return Clip(rgb=cropped, alpha=opacity, crop=crop, confidence=confidence, method=method, fps=video.fps)


def _check_seen(alpha: Tensor, confidence: Tensor, method: Method) -> Tensor:
    """Empty the frames that hold next to nothing, warn of them, and return the confidence with 0 there."""
    covered = covered_share(alpha)
    usual = float(covered[covered > 0].median()) if bool((covered > 0).any()) else 0.0
    missing = covered == 0 if method in ("mask", "alpha") else covered < max(LEAST, HARDLY * usual)
    alpha[missing] = 0
    if missing.all() and method in ("mask", "alpha"):
        other = ", or set segmentation.method=saliency, which passes it over" if method == "alpha" else ""
        raise InputError(
            f"All {len(alpha)} frames are fully transparent by the {NAMES[method]}; give what shows an object{other}."
        )
    if missing.all():
        raise InputError(
            f"No foreground was found in any of {len(alpha)} frames by {NAMES[method]}; give a clip that shows an "
            "object, frames with alpha, or point at it with segmentation.box or segmentation.point."
        )
    if missing.any():
        LOG.warning("segmentation: the object is not seen in %s", named(missing))
    unsure = ~missing & (confidence < CONFIDENT)
    if unsure.any():
        LOG.warning(
            "segmentation: unsure of the object in %s, with a confidence down to %.2f; look at the result, or give "
            "masks with --mask",
            named(unsure),
            float(confidence[unsure].min()),
        )
    return torch.where(missing, 0.0, confidence)


def covered_share(alpha: Tensor) -> Tensor:
    """How much of each frame (t,) alpha (t, h, w) shows anything of, from 0 to 1."""
    return torch.tensor([np.count_nonzero(frame) / frame.size for frame in alpha.numpy()])


def named(frames: Tensor) -> str:
    """The frames (t,) that are true, as a sentence names them."""
    numbers: Sequence[int] = frames.nonzero().flatten().tolist()
    return f"frames {numbers}"
