"""Windows of stored clips, made ready while the networks are busy; each batch a function of (seed, step) alone."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.errors import InputError
from ss4d.stages.training.clips import (
    METADATA,
    ClipStore,
    cut,
    draw,
    start_worker,
    step_generator,
    with_views,
)
from ss4d.stages.training.variation import varied
from ss4d.stages.types import Axes

STEPS_AHEAD = 2  # batches that are read while the networks are busy, at least


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What is shown of stored clips: every clip once an epoch, in another order each time.

    Attributes:
        store: the clips.
        seed: decides order and windows.
        num_frames: length of a window; shorter clips are taken whole.
        resolution: of the grid that the networks are for.
        axes: of that grid.
        num_views: other views that are looked at, at most; None for all.
        vary: whether each is changed at random to what it might have been as well.
    """

    store: ClipStore
    seed: int
    num_frames: int
    resolution: int
    axes: Axes = "world"
    num_views: int | None = None
    vary: bool = False

    def batch(self, step: int, count: int) -> list[TrainingClip]:
        """The `count` windows of `step`."""
        orders: dict[int, torch.Tensor] = {}
        clips = []
        for place in range(step * count, (step + 1) * count):
            epoch, offset = divmod(place, len(self.store))
            if epoch not in orders:
                orders[epoch] = self._order(epoch)
            clips.append(self._clip(int(orders[epoch][offset]), place))
        return clips

    def _order(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(draw(self.seed, "epoch", epoch, below=2**63))
        return torch.randperm(len(self.store), generator=generator)

    def _clip(self, index: int, place: int) -> TrainingClip:
        clip = self.store.read(index)
        if clip.resolution != self.resolution:
            raise InputError(
                f"a clip has a grid of {clip.resolution} cells, but the networks are for {self.resolution}; make the "
                f"data with --resolution {self.resolution}"
            )
        if clip.axes != self.axes:
            raise InputError(
                f"the axes of a clip's grid are the {clip.axes}'s, but the networks are for the {self.axes}'s; make "
                f"the data with --axes {self.axes}"
            )
        length = min(self.num_frames, clip.num_frames)
        shown = cut(clip, draw(self.seed, "window", place, below=clip.num_frames - length + 1), length)
        shown = with_views(shown, self.num_views)
        return varied(shown, step_generator(self.seed, "vary", place)) if self.vary else shown


class StoredClips:
    """The windows of each step, read ahead of time.

    Args:
        windows: what is read.
        processes: that read; 0 for threads of this one. Threads take turns with each other and with the caller, who
            could not keep a GPU busy then; processes take seconds to start.
    """

    def __init__(self, windows: Windows, processes: int = 0) -> None:
        if not len(windows.store):
            raise InputError("there is no clip to train on")
        self._windows = windows
        self._ahead = max(STEPS_AHEAD, processes)
        self._readers: Executor = (
            ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_reader)
            if processes
            else ThreadPoolExecutor(STEPS_AHEAD)
        )
        self._read: dict[tuple[int, int], Future[list[dict[str, Any]]]] = {}

    def batch(self, step: int, count: int) -> list[TrainingClip]:
        for ahead in range(step, step + self._ahead + 1):
            if (ahead, count) not in self._read:
                self._read[ahead, count] = self._readers.submit(_read, self._windows, ahead, count)
        clips = [_clip_of(content) for content in self._read.pop((step, count)).result()]
        for old in [key for key in self._read if key[0] <= step]:
            del self._read[old]
        return clips

    def close(self) -> None:
        """Ends the readers."""
        self._readers.shutdown(cancel_futures=True)


def _start_reader() -> None:
    """Begins a process that reads: side by side with others, so on a single thread."""
    start_worker()
    torch.set_num_threads(1)


def _read(windows: Windows, step: int, count: int) -> list[dict[str, Any]]:
    """The fields of each clip, with arrays for tensors: those go from one process to another as they are."""
    return [
        {name: getattr(clip, name).numpy() for name in clip.specs()} | {name: getattr(clip, name) for name in METADATA}
        for clip in windows.batch(step, count)
    ]


def _clip_of(content: Mapping[str, Any]) -> TrainingClip:
    fields: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in content.items()
    }
    return TrainingClip(**fields)
