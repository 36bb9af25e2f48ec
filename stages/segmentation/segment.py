"""The segmentation stage: frames (t, y, x, color) to the object alone, cropped; chooses the method, and says so."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.segmentation.alpha import clean_alpha, has_alpha, hidden_share, is_matte
from ss4d.stages.segmentation.color_key import UNIFORM, color_key_masks, find_key
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.crop import crop_frames
from ss4d.stages.segmentation.field import field_box
from ss4d.stages.segmentation.masks import ObjectTracker, largest_subject
from ss4d.stages.segmentation.saliency import saliency_masks
from ss4d.stages.types import Clip, Progress, Video, silent

LOG = logging.getLogger("ss4d")
NAMES = {
    "mask": "masks of the user",
    "alpha": "alpha of the input",
    "color_key": "color key",
    "saliency": "saliency (u2netp + GrabCut)",
}
LEAST = 0.0002  # share of a frame the object must cover to count as seen
HARDLY = 0.03  # of the area that it has in most frames; what is left of it in less is no object
CONFIDENT = 0.6  # below this a frame is warned of
WHOLE = 0.95  # an object that fills more of the frame than this is a background that was not found
NOT_FOUND = 0.2  # confidence of such a frame, at most

Method = Literal["mask", "alpha", "color_key", "saliency"]


def segment(
    config: SegmentationConfig, video: Video, *, masks: Tensor | None = None, progress: Progress = silent
) -> Clip:
    """Cut the object out of every frame and crop the clip to it (docs/model.md, section 2).

    With masks or alpha, all that they show is the object. Else it is what stands out, the largest if several things do;
    with a box or point, only what is connected to that. Frames in which the object is not seen get no alpha and a
    warning in the log; so do frames of low confidence.

    Args:
        config: method and hints.
        video: frames (t, h, w, 3 or 4) uint8.
        masks: the user's own, (t, h, w) uint8, 255 on the object.
        progress: told after each step of the method.

    Returns:
        The clip at `config.size`; `method` says how it was found.

    Raises:
        InputError: no frame shows an object, `alpha` was asked for and there is none, or a hint lies outside.
        ModelError: the bundled saliency network is missing or damaged.
    """
    frames, rgb = video.frames, video.frames[..., :3]
    tracker = _tracker(config, frames, video.scale)
    method: Method = "mask" if masks is not None else _method(config, frames)
    if masks is not None:
        alpha, confidence = masks.clone(), torch.ones(len(masks))
    elif method == "alpha":
        alpha, confidence = _by_alpha(frames, tracker, progress)
    else:
        alpha, confidence = _by_looks(rgb, method, tracker, progress)
    if tracker and method != "saliency":
        alpha = torch.stack([torch.from_numpy(tracker.keep(frame)) for frame in alpha.numpy()])
    confidence = _check_seen(alpha, confidence, method)
    seen = confidence > 0
    LOG.info("segmentation: %s, confidence %.2f", NAMES[method], float(confidence[seen].mean()))
    cropped, opacity, crop = crop_frames(rgb, alpha, config.size)
    crop = torch.round(crop * video.scale).long()
    progress(1, 1)
    return Clip(rgb=cropped, alpha=opacity, crop=crop, confidence=confidence, method=method, fps=video.fps)


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
        LOG.warning("segmentation: alpha hides nothing in %s; %s instead", _named(bare), NAMES[method])
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
    whole = (found > 0).flatten(1).float().mean(1) > WHOLE
    confidence = torch.where(whole, confidence.clamp(max=NOT_FOUND), confidence)
    if tracker is None:
        kept, count = largest_subject(found.numpy())
        found = torch.from_numpy(kept)
        if count > 1:
            LOG.warning(
                "segmentation: %d objects stand out, and the largest is kept; segmentation.point=[x, y] or "
                "segmentation.box=[left, top, right, bottom] in the first frame chooses another",
                count,
            )
    alpha = torch.zeros(rgb.shape[:3], dtype=torch.uint8)
    _inside(alpha, box).copy_(found)
    return alpha, confidence


def _named(frames: Tensor) -> str:
    """The frames (t,) that are true, as a sentence names them."""
    numbers: Sequence[int] = frames.nonzero().flatten().tolist()
    return f"frames {numbers}"


def _tracker(config: SegmentationConfig, frames: Tensor, scale: float) -> ObjectTracker | None:
    """What follows the object that the user pointed at, in pixels of the input; None if they did not."""
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
    usual = float(covered[covered > 0].median()) if bool((covered > 0).any()) else 0.0
    missing = covered == 0 if method in ("mask", "alpha") else covered < max(LEAST, HARDLY * usual)
    alpha[missing] = 0
    if missing.all() and method in ("mask", "alpha"):
        raise InputError(
            f"All {len(alpha)} frames are fully transparent by the {NAMES[method]}; give what shows an object."
        )
    if missing.all():
        raise InputError(
            f"No foreground was found in any of {len(alpha)} frames by {NAMES[method]}; give a clip that shows an "
            "object, frames with alpha, or point at it with segmentation.box or segmentation.point."
        )
    if missing.any():
        LOG.warning("segmentation: the object is not seen in %s", _named(missing))
    unsure = ~missing & (confidence < CONFIDENT)
    if unsure.any():
        LOG.warning(
            "segmentation: unsure of the object in %s, with a confidence down to %.2f; look at the result, or give "
            "masks with --mask",
            _named(unsure),
            float(confidence[unsure].min()),
        )
    return torch.where(missing, 0.0, confidence)
