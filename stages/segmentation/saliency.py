"""Segmentation of an object before any background: u2netp says what stands out, GrabCut finds its edges.

Frames are (t, y, x, RGB). A window is the part of a frame that is looked at closely, shrunk to the network's square.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss4d.stages.segmentation.grabcut import grabcut
from ss4d.stages.segmentation.masks import Box, Mask, ObjectTracker, bounding_box, grown, parts, without_specks
from ss4d.stages.segmentation.plate import CleanPlate, clean_plate
from ss4d.stages.segmentation.saliency_net import SIDE, SaliencyNet, agreement, shrink
from ss4d.stages.threads import side_by_side
from ss4d.stages.types import Progress

T = TypeVar("T")

SAMPLES = 32  # frames that tell of the whole clip, at most; more only take time
MOST_THREADS = 8  # that look at frames side by side, each with 100 MB of its own
WINDOW = 1.25  # the second pass looks at the object's box grown by this, as a box of the user's is
FOLLOW = 1.5  # likewise for the next frame of a followed object, which moves
OUTLIER = 4.0  # a box this many times as large as the median one saw something else
DECIDED = 0.8  # saliency that is less far from undecided than this is looked at again
CERTAIN, POSSIBLE = 0.99, 0.05  # saliency above which a pixel is the object; below which, and far, it is not
REACH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))  # how far the object may go beyond its saliency
SPECKS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How closely frames are looked at; docs/benchmarks.md has what it costs and brings.

    Attributes:
        every: the first pass, which looks for the window, sees about every so manieth frame.
        glance: side of the images that the network is given in that pass, pixels.
        side: likewise in the window.
        closer: likewise where the network is undecided; what it is surer of counts. 0: no second look.
        iterations: of GrabCut; 0: the network alone.
    """

    every: int = 12
    glance: int = 256
    side: int = 192
    closer: int = 256
    iterations: int = 1


USUAL = Effort()


def saliency_masks(
    frames: Tensor, tracker: ObjectTracker | None, progress: Progress, effort: Effort = USUAL
) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) uint8 of what stands out, and confidence (t,): the agreement of saliency and final mask.

    Args:
        frames: (t, h, w, 3) uint8.
        tracker: the object the user pointed at; without one, whatever stands out in the whole clip.
        progress: told after each network run and each mask.
        effort: how closely frames are looked at.

    Raises:
        ModelError: the bundled network is missing or damaged.
    """
    images = frames.numpy()
    alpha = torch.zeros(frames.shape[:3], dtype=torch.uint8)
    confidence = torch.zeros(len(frames))
    found = _tracked(images, tracker, effort, progress) if tracker else _together(images, effort, progress)
    for t, (mask, sure) in enumerate(found):
        alpha[t] = torch.from_numpy(mask)
        confidence[t] = sure
    return alpha, confidence


class Eye:
    """The network as it looks at a view (SIDE, SIDE, 3)."""

    def __init__(self, effort: Effort) -> None:
        self._net = SaliencyNet()
        self._effort = effort

    def glance(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Saliency of what may be a whole frame."""
        return self._net(view, self._effort.glance)

    def look(self, view: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Saliency of a window: seen once, and twice where the network is undecided."""
        seen = self._net(view, self._effort.side)
        sure = decided(seen)
        if sure >= DECIDED or not self._effort.closer:
            return seen
        again = self._net(view, self._effort.closer)
        return again if decided(again) > sure else seen


def decided(saliency: NDArray[np.float32]) -> float:
    """How far saliency is from undecided, from 0 to 1."""
    return agreement(saliency, saliency > 0.5)


Found = tuple[NDArray[np.uint8], float]  # alpha of one frame (h, w), and its confidence
View = tuple[NDArray[np.uint8], NDArray[np.float32]]  # a view (SIDE, SIDE, 3), and its saliency


def _together(images: NDArray[np.uint8], effort: Effort, progress: Progress) -> Iterator[Found]:
    """Two passes: one window that holds the object in all frames, then each frame in that window."""
    num_frames, (height, width) = len(images), images.shape[1:3]
    glances, samples = evenly(num_frames, effort.every), range(0, num_frames, -(-num_frames // SAMPLES))
    done, steps = count(1), len(glances) + 2 * num_frames
    eye = Eye(effort)

    def told(found: Iterable[T]) -> list[T]:
        results = []
        for result in found:
            results.append(result)
            progress(next(done), steps)
        return results

    def glance(t: int) -> Box | None:
        return _largest_box(eye.glance(shrink(images[t])) > 0.5, width, height)

    def look(t: int) -> View:
        view = shrink(images[t, top:bottom, left:right])
        return view, eye.look(view)

    def refined(view: View) -> Found:
        mask = without_specks(_refine(*view, plate, effort.iterations))
        return _paste(mask, window, (height, width)), agreement(view[1], mask)

    with side_by_side(MOST_THREADS) as pool:
        boxes = told(pool.map(glance, glances))
        left, top, right, bottom = window = _window([box for box in boxes if box is not None], width, height)
        sampled = dict(zip(samples, told(pool.map(look, samples)), strict=True))
        views, saliency = (np.stack(kind) for kind in zip(*sampled.values(), strict=True))
        plate = clean_plate(views, np.stack([_near(seen) for seen in saliency]))
        for begin in range(0, num_frames, SAMPLES):  # so many at once, since views of all frames could take gigabytes
            chunk = range(num_frames)[begin : begin + SAMPLES]
            rest = [t for t in chunk if t not in sampled]
            looked = sampled | dict(zip(rest, told(pool.map(look, rest)), strict=True))
            yield from told(pool.map(refined, [looked[t] for t in chunk]))


def evenly(count: int, every: int) -> list[int]:
    """About every `every`-th of so many frames, at most `SAMPLES` of them, with the first and the last."""
    num_chosen = min(SAMPLES, -(-(count - 1) // every) + 1)
    return sorted({round(t) for t in np.linspace(0, count - 1, num_chosen)})


def _tracked(images: NDArray[np.uint8], tracker: ObjectTracker, effort: Effort, progress: Progress) -> Iterator[Found]:
    """One pass: each frame in a window about where the object was in the frame before."""
    eye, (height, width) = Eye(effort), images.shape[1:3]
    # A point says nothing about the object's size: the first frame is then looked at as a whole.
    window = grown(tracker.box or (0, 0, width, height), WINDOW, width, height)
    seen = tracker.box
    for t, image in enumerate(images):
        left, top, right, bottom = window
        view = shrink(image[top:bottom, left:right])
        saliency = eye.look(view) if seen else eye.glance(view)
        mask = _refine(view, saliency, None, effort.iterations)
        alpha = tracker.keep(_paste(mask, window, (height, width)))
        seen = bounding_box(alpha > 0)
        yield alpha, agreement(saliency, mask) if seen else 0.0
        # Out of sight: look about where it was, wider from frame to frame.
        window = grown(seen or window, FOLLOW, width, height)
        progress(t + 1, len(images))


def _paste(mask: Mask, window: Box, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A mask (SIDE, SIDE) as alpha (h, w) of the frame whose window it was found in, with soft edges."""
    left, top, right, bottom = window
    soft = cv2.resize(mask.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    alpha = np.zeros(shape, np.uint8)
    alpha[top:bottom, left:right] = np.rint(soft * 255)
    return alpha


def _largest_box(mask: Mask, width: int, height: int) -> Box | None:
    """The box about the largest part of a mask (SIDE, SIDE), in pixels of a frame of width x height."""
    largest = parts(mask)[:1]
    box = bounding_box(largest[0]) if largest else None
    if box is None:
        return None
    x, y = width / SIDE, height / SIDE
    return int(box[0] * x), int(box[1] * y), int(np.ceil(box[2] * x)), int(np.ceil(box[3] * y))


def _window(boxes: list[Box], width: int, height: int) -> Box:
    """The union of the boxes, grown; the whole frame when there is none."""
    if not boxes:
        return 0, 0, width, height
    corners = np.array(boxes)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    corners = corners[areas <= OUTLIER * np.median(areas)]
    left, top = corners[:, :2].min(0).tolist()
    right, bottom = corners[:, 2:].max(0).tolist()
    return grown((left, top, right, bottom), WINDOW, width, height)


def _near(saliency: NDArray[np.float32]) -> Mask:
    reached: Mask = cv2.dilate((saliency > POSSIBLE).astype(np.uint8), REACH) > 0
    return reached


def _refine(view: NDArray[np.uint8], saliency: NDArray[np.float32], plate: CleanPlate | None, iterations: int) -> Mask:
    """The mask of one view (SIDE, SIDE, 3): GrabCut, guessing first by saliency and the clean plate if there is one."""
    near = _near(saliency)
    if not near.any() or not iterations:
        return saliency > 0.5
    guess = np.where(saliency > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    guess[saliency > CERTAIN] = cv2.GC_FGD
    if plate is None:
        guess[~near] = cv2.GC_BGD
        return grabcut(view, guess, iterations)
    same, hidden = plate.differs(view)
    hidden = cv2.morphologyEx(hidden.astype(np.uint8), cv2.MORPH_OPEN, SPECKS).astype(np.bool_)
    guess[~near & ~hidden] = cv2.GC_BGD
    guess[hidden] = cv2.GC_PR_FGD  # only probable: a shadow hides the background too
    guess[hidden & near & (saliency > 0.1)] = cv2.GC_FGD
    guess[same] = cv2.GC_BGD
    return grabcut(view, guess, iterations)
