"""Clips for training: made for each step, or made once and kept; each a function of the seed and a number alone.

Axes of a clip are those of `TrainingClip`; a batch is a list of clips of one length.
"""

import json
import logging
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ss4d.stages.data.clip import HELD_OUT_SEED, REVISION, ClipSpec, TrainingClip, make_clip
from ss4d.stages.errors import InputError
from ss4d.stages.training.files import write_whole
from ss4d.stages.types import Progress

LOG = logging.getLogger("ss4d.training")

METADATA = [f.name for f in fields(TrainingClip) if "spec" not in f.metadata]
Job = TypeVar("Job")
Made = TypeVar("Made")

STEPS_AHEAD = 2  # batches that are made while the networks are busy


class ClipSource(Protocol):
    """Batches for the steps of a training run."""

    def batch(self, step: int, count: int) -> list[TrainingClip]:
        """The `count` clips of `step`, the same on every call and in every process."""
        ...


class ClipStore(Protocol):
    """Clips by number."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> TrainingClip:
        """The clip with this number, safe to call from several threads."""
        ...


def draw(*key: int | str, below: int) -> int:
    """A whole number from 0 to `below` - 1 that looks random and depends on `key` alone."""
    digest = blake2b(json.dumps(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little") % below


def step_generator(seed: int, name: str, step: int) -> torch.Generator:
    """The CPU generator of one step of the objective `name`."""
    return torch.Generator().manual_seed(draw(seed, name, step, below=2**63))


def cut(clip: TrainingClip, start: int, length: int) -> TrainingClip:
    """Frames `start` to `start + length - 1` of a clip."""
    if length == clip.num_frames:
        return clip
    inside = (clip.coords[:, 1] >= start) & (clip.coords[:, 1] < start + length)
    return replace(
        clip,
        frames=clip.frames[start : start + length],
        views=clip.views[:, start : start + length],
        coords=clip.coords[inside] - clip.coords.new_tensor([0, start, 0, 0, 0]),
        feats=clip.feats[inside],
    )


def with_views(clip: TrainingClip, count: int | None) -> TrainingClip:
    """The clip with its first `count` views; None for all."""
    if count is None or count >= len(clip.views):
        return clip
    return replace(
        clip,
        views=clip.views[:count],
        view_cameras=clip.view_cameras[:count],
        view_focals=clip.view_focals[:count],
    )


def pack(clip: TrainingClip) -> bytes:
    """A clip as the content of a safetensors file, with a checksum of its own."""
    facts = {name: getattr(clip, name) for name in METADATA}
    tensors = {name: getattr(clip, name).contiguous() for name in clip.specs()}
    # One entry alone: safetensors writes several in any order.
    return save(tensors, {"clip": json.dumps({**facts, "crc32": _checksum(facts, tensors)})})


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(json.dumps(facts).encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().tobytes(), checksum)
    return f"{checksum:08x}"


def read_clip(file: Path) -> TrainingClip:
    """The clip in a file that `pack` made.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return _unpack(file.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the clip {file} cannot be read: {error}") from error


class FreshClips:
    """Makes new clips for every step, ahead of time, in processes that end with this one.

    Args:
        spec: what to make; its seed is replaced.
        seed: decides every clip together with the step.
        workers: processes.
    """

    def __init__(self, spec: ClipSpec, seed: int, workers: int) -> None:
        self._spec, self._seed = spec, seed
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start_worker)
        self._made: dict[tuple[int, int], list[Future[bytes]]] = {}

    def batch(self, step: int, count: int) -> list[TrainingClip]:
        for ahead in range(step, step + STEPS_AHEAD + 1):
            if (ahead, count) not in self._made:
                seeds = [draw(self._seed, "clip", ahead, i, below=HELD_OUT_SEED) for i in range(count)]
                specs = [replace(self._spec, seed=seed) for seed in seeds]
                self._made[ahead, count] = [self._pool.submit(_make, spec) for spec in specs]
        clips = [_unpack(future.result()) for future in self._made.pop((step, count))]
        for old in [key for key in self._made if key[0] <= step]:
            del self._made[old]
        return clips

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class ClipPool:
    """Clips made once and kept as files in a folder; see `make_pool`. One that is damaged is made again."""

    folder: Path
    numbers: range
    spec: ClipSpec
    seed: int

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> TrainingClip:
        number = self.numbers[index]
        file = _pool_file(self.folder, number)
        try:
            return read_clip(file)
        except InputError as error:
            LOG.warning("%s; it is made again", error)
            return read_clip(_keep((_pool_spec(self.spec, self.seed, number), file)))


def make_pool(folder: Path, spec: ClipSpec, seed: int, numbers: range, workers: int, *, progress: Progress) -> ClipPool:
    """Makes the clips of `seed` with these numbers that are not in `folder` yet.

    Args:
        folder: one for each (spec, seed).
        spec: what to make; its seed is replaced.
        seed: decides every clip.
        numbers: of the clips, at least one; each number is another clip.
        workers: processes; with 1, the work is done here.
        progress: told after every clip.

    Raises:
        InputError: if the folder holds clips of another kind or seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({**spec.decides(), "seed": seed, "revision": REVISION}, indent=1)
    label = folder / "pool.json"
    if not label.exists():
        write_whole(label, content.encode())
    if label.read_text() != content:
        raise InputError(f"{folder} holds clips made in another way; delete it, or choose another folder")
    jobs = [
        (_pool_spec(spec, seed, number), _pool_file(folder, number))
        for number in numbers
        if not _pool_file(folder, number).exists()
    ]
    for done, _ in enumerate(side_by_side(_keep, jobs, workers), start=1):
        progress(done, len(jobs))
    return ClipPool(folder, numbers, spec, seed)


def side_by_side(make: Callable[[Job], Made], jobs: Sequence[Job], workers: int) -> Iterator[Made]:
    """What `make` makes of the jobs, in their order, by so many processes; with one, or a single job, here."""
    if workers == 1 or len(jobs) < 2:
        yield from map(make, jobs)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"), start_worker) as pool:
        try:
            yield from (future.result() for future in [pool.submit(make, job) for job in jobs])
        finally:
            pool.shutdown(cancel_futures=True)  # the caller may stop early, and needs no more then


def _pool_spec(spec: ClipSpec, seed: int, number: int) -> ClipSpec:
    return replace(spec, seed=draw(seed, "pool", number, below=HELD_OUT_SEED))


def _pool_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _keep(job: tuple[ClipSpec, Path]) -> Path:
    spec, file = job
    write_whole(file, _make(spec), durable=False)
    return file


def _make(spec: ClipSpec) -> bytes:
    with one_thread():
        return pack(make_clip(spec))


@contextmanager
def one_thread() -> Iterator[None]:
    """Clips are made side by side, so each on a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _unpack(content: bytes) -> TrainingClip:
    # safetensors reads metadata from files alone: its header is a length and that much JSON.
    length = int.from_bytes(content[:8], "little")
    facts: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["clip"])
    tensors: dict[str, Any] = load(content)
    if facts.pop("crc32") != _checksum(facts, tensors):
        raise ValueError("its checksum does not match")
    return TrainingClip(**tensors, **facts)


def start_worker() -> None:
    """Begins a process beside this one: it ends when its parent does, however that ends, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a worker process"
    wait([parent.sentinel])
    os._exit(1)
