"""Segmentation by networks that are no part of this program, from files that the user has."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ss4d.stages.segmentation.birefnet import Birefnet, birefnet_masks
from ss4d.stages.segmentation.config import BirefnetConfig, Sam2Config
from ss4d.stages.segmentation.cut import cut_out, followed_by, hint_of, main_subject, tracker_of
from ss4d.stages.segmentation.sam2 import load_sam2, sam2_masks
from ss4d.stages.types import Clip, Progress, Video, silent

Finer = Iterable[NDArray[np.uint8]]


def segment_by_birefnet(
    config: BirefnetConfig, weights: Path, video: Video, *, finer: Finer | None = None, progress: Progress = silent
) -> Clip:
    """As `segment`, by BiRefNet: the largest of what stands out, or what is connected to a hint."""
    rgb, tracker = video.frames[..., :3], tracker_of(config, video)
    alpha, confidence = birefnet_masks(Birefnet(weights), rgb, progress)
    if tracker is None:
        alpha, confidence = main_subject(alpha, rgb, confidence)
    else:
        alpha = followed_by(alpha, tracker)
    return cut_out(config, video, alpha, confidence, "birefnet", finer, progress)


def segment_by_sam2(
    config: Sam2Config,
    weights: Path,
    video: Video,
    device: str,
    *,
    finer: Finer | None = None,
    progress: Progress = silent,
) -> Clip:
    """As `segment`, by SAM 2: what is in the box or at the point, followed through the frames on a device."""
    hint = hint_of(config, video)
    assert hint is not None  # the configuration asks for one
    model = load_sam2(weights, device)
    alpha, confidence = sam2_masks(model, video.frames[..., :3], hint.box, hint.point, progress)
    return cut_out(config, video, alpha, confidence, "sam2", finer, progress)
