"""The user's own masks: a folder or video of masks, matched to the frames of an input by name or by order."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.picture import Bounds, Pixels
from ss4d.stages.reading.sources import FrameSource, Images, opened_source
from ss4d.stages.types import Video

NOISE = 16  # levels that a codec adds to a mask, or takes from it
PICTURE = 0.5  # share of a mask that is gray at most; soft edges are less


def read_masks(path: Path, source: Path, config: InputConfig, video: Video) -> Tensor:
    """The masks in `path` (t, h, w) uint8, 255 on the object, of the frames of `source` that `config` chooses.

    A mask is white on the object, or opaque; of two levels the higher one counts, if it is not black. Any size is
    brought to that of the frames. Images belong to the frames of their names or numbers, such as `0007.png` or
    `0007_mask.png` to `0007.jpg`, other masks to all frames of the input in order, or to those that are used.

    Args:
        path: a folder, archive or video of masks.
        source: the input.
        config: which of its frames are used.
        video: those frames.

    Raises:
        InputError: either cannot be read, masks and frames do not fit, or what is given are pictures and no masks.
    """
    with opened_source(source, config) as frames, opened_source(path, _read_alike(config)) as masks:
        chosen = config.indices(frames.line.count, frames.line.rate)
        wanted = _matched(path, masks, frames, chosen)
        height, width = video.frames.shape[1:3]
        alpha = torch.zeros(len(chosen), height, width, dtype=torch.uint8)
        order = sorted(range(len(wanted)), key=wanted.__getitem__)  # a video is read from its beginning on
        bounds = Bounds(max_pixels=config.max_pixels)
        for t, picture in zip(order, masks.read([wanted[t] for t in order], bounds), strict=True):
            level = _levels(picture.pixels)
            _check_mask(path, masks.label(wanted[t]), level)
            alpha[t] = torch.from_numpy(_resized(level, width, height))
    return alpha


def _read_alike(config: InputConfig) -> InputConfig:
    """All masks, in order, bounded and timed as the frames are."""
    alike = {"fps", "max_pixels", "max_pause", "max_rate", "max_animation"}
    return InputConfig.model_validate(config.model_dump(include=alike))


def _matched(path: Path, masks: FrameSource, frames: FrameSource, chosen: Sequence[int]) -> list[int]:
    """Which mask belongs to each chosen frame."""
    if isinstance(masks, Images) and isinstance(frames, Images):
        for named in (_by_stem, _by_number):
            theirs, ours = named(masks.names), named(frames.names)
            found = [theirs.get(name) for name in (list(ours)[frame] for frame in chosen)] if ours else []
            if found and None not in found:
                return [mask for mask in found if mask is not None]
    total, used = frames.line.count, len(chosen)
    if masks.line.count == total:
        return list(chosen)
    if masks.line.count == used:
        return list(range(used))
    of = "" if used == total else f", of which {used} are used"
    raise InputError(
        f"{path} holds {masks.line.count} masks, and the input has {total} frames{of}; give one mask a frame, in order "
        "or with the frames' names."
    )


def _by_stem(names: Sequence[str]) -> Mapping[str, int]:
    return {PurePosixPath(name).stem.lower(): index for index, name in enumerate(names)}


def _by_number(names: Sequence[str]) -> Mapping[str, int]:
    """By the digits in their names; empty if two have the same or one has none."""
    numbers = ["-".join(part.lstrip("0") or "0" for part in _digits(PurePosixPath(name).stem)) for name in names]
    if "" in numbers or len(set(numbers)) < len(numbers):
        return {}
    return {number: index for index, number in enumerate(numbers)}


def _digits(stem: str) -> list[str]:
    return "".join(c if c.isascii() and c.isdigit() else " " for c in stem).split()


def _levels(pixels: Pixels) -> NDArray[np.uint8]:
    """A mask of 0 to 255 (h, w)."""
    level = pixels[..., 3] if pixels.shape[2] == 4 and pixels[..., 3].min() < 255 else pixels[..., :3].max(-1)
    if len(np.unique(level)) <= 2:  # labels, such as 0 and 1
        level = 255 * (level > (0 if level.min() == level.max() else level.min())).astype(np.uint8)
    return np.where(level <= NOISE, 0, np.where(level >= 255 - NOISE, 255, level)).astype(np.uint8)


def _check_mask(path: Path, label: str, level: NDArray[np.uint8]) -> None:
    """Raises InputError for what is a picture and no mask, such as the frames themselves."""
    gray = float(((level > 0) & (level < 255)).mean())
    if gray > PICTURE:
        raise InputError(
            f"{path} holds pictures and no masks: {100 * gray:.0f} % of {label} is neither black nor white; give masks "
            "that are white on the object and black elsewhere."
        )


def _resized(level: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if level.shape == (height, width):
        return level
    smaller = level.shape[0] > height
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(level, (width, height), interpolation=method), np.uint8)
