"""A package of stages that give next to nothing, fast, and do to a worker what the first pixel of a clip asks for.

`install` makes it known to processes that have the given folder on their path.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.manifest import Listed, Row, read_clip
from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.errors import InputError
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, GaussianClip
from ss4d.stages.video_io import write_video
from ss4d.storage.manifest import write_rows
from tests.helpers.packages import install_stages
from tests.helpers.unfitted import OFF

GOOD, KILLER, HANGING, GREEDY, PASSING, DEFECT, BAD, SLOW = range(8)
SIZE = 16
METHODS = ("segmentation.method=poisoned", "decoding.method=dull", "export.method=dull", *OFF)


class PoisonedConfig(StageConfig):
    method: Literal["poisoned"] = "poisoned"
    notes: str = ""  # a folder to remember things in
    seconds: float = 2.0  # that a slow clip takes


class DullDecodingConfig(StageConfig):
    method: Literal["dull"] = "dull"


class DullExportConfig(StageConfig):
    method: Literal["dull"] = "dull"
    text: str = "nothing"
    turntable: bool = False


def kill(config: PoisonedConfig) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(config: PoisonedConfig) -> None:
    while True:
        time.sleep(1)


def take_memory(config: PoisonedConfig) -> None:
    """64 MiB at a time, up to 4 GiB, so that a limit has the time to act."""
    taken = []
    for _ in range(64):
        taken.append(np.ones(64 << 20, np.uint8))
        time.sleep(0.02)
    raise AssertionError("nobody minded")


def fail_once(config: PoisonedConfig) -> None:
    note = Path(config.notes, "failed")
    if not note.exists():
        note.touch()
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def divide(config: PoisonedConfig) -> None:
    1 / 0  # noqa: B018


def refuse(config: PoisonedConfig) -> None:
    raise InputError("It shows no object.")


def sleep(config: PoisonedConfig) -> None:
    time.sleep(config.seconds)


POISONS: dict[int, Callable[[PoisonedConfig], None]] = {
    KILLER: kill,
    HANGING: hang,
    GREEDY: take_memory,
    PASSING: fail_once,
    DEFECT: divide,
    BAD: refuse,
    SLOW: sleep,
}


def segment(config: PoisonedConfig, inputs: StageInputs) -> Clip:
    video = inputs.video()
    poison = int(video.frames[0, 0, 0, 0])
    if poison in POISONS:
        POISONS[poison](config)
    num_frames = len(video.frames)
    return Clip(
        rgb=torch.full((num_frames, 2, 2, 3), poison, dtype=torch.uint8),
        alpha=torch.full((num_frames, 2, 2), 255, dtype=torch.uint8),
        crop=torch.zeros(4, dtype=torch.int64),
        confidence=torch.ones(num_frames),
        method="poisoned",
        fps=video.fps,
    )


def decode(config: DullDecodingConfig, inputs: StageInputs) -> GaussianClip:
    num_frames = len(inputs.value("segmentation", Clip).rgb)
    return GaussianClip(
        means=torch.zeros(num_frames, 3),
        scales=torch.ones(num_frames, 3),
        quats=torch.eye(4)[:1].repeat(num_frames, 1),
        colors=torch.zeros(num_frames, 3),
        opacities=torch.ones(num_frames),
        offsets=torch.arange(num_frames + 1),
    )


def export(config: DullExportConfig, inputs: StageInputs) -> None:
    inputs.value("decoding", GaussianClip)
    (inputs.folder / "asset.txt").write_text(config.text)
    if config.turntable:
        write_video(inputs.folder / "turntable.mp4", torch.full((2, SIZE, SIZE, 3), 200, dtype=torch.uint8), 24)


SEGMENTATION = Implementation(stage="segmentation", config=PoisonedConfig, run=segment, source=True)
DECODING = Implementation(stage="decoding", config=DullDecodingConfig, run=decode, inputs=("segmentation",))
EXPORT = Implementation(stage="export", config=DullExportConfig, run=export, inputs=("decoding",))


def install(site: Path) -> None:
    """Makes the stages known to every process that has the folder `site` on its path."""
    entries = {"segmentation.poisoned": "SEGMENTATION", "decoding.dull": "DECODING", "export.dull": "EXPORT"}
    install_stages(site, "poisoned-stages", {name: f"{__name__}:{value}" for name, value in entries.items()})


def save_clip(folder: Path, poison: int = GOOD, variant: int = 0) -> None:
    """A clip of two frames, unlike those of other variants, with a first pixel that asks for `poison`."""
    folder.mkdir(parents=True)
    frames = np.full((2, SIZE, SIZE, 3), 90, np.uint8)
    frames[:, 0, 0] = (poison, variant % 256, variant // 256)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t}.png")


def make_dataset(folder: Path, clips: Iterable[Path]) -> Dataset:
    """A dataset of these clips, each called as its file; made without processes, which take seconds to start."""
    dataset = create_dataset(folder)
    write_rows(dataset.manifest, Row, [read_clip(Listed(clip.stem, str(clip), "")) for clip in clips])
    return dataset
