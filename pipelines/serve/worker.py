"""A process that makes assets on one device, one after the other, and tells how it goes."""

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from ss4d.pipelines.errors import explain
from ss4d.pipelines.plan import Step
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.pipelines.stage_result import StageResult
from ss4d.pipelines.workers import end_with_parent

STEPS = 200  # of a stage that are told at most: a pipe that is full would hold the stage up


@dataclass(frozen=True, kw_only=True)
class Job:
    """An asset to make.

    Attributes:
        id: of the submission, and name of the run.
        video: the file.
        overrides: of the configuration.
    """

    id: str
    video: Path
    overrides: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Making:
    """How all assets are made: where the runs go, and what `ss4d run` is told."""

    out: Path
    config: str
    seed: int
    device: str


@dataclass(frozen=True)
class Started:
    """A stage begins, or is found done."""

    stage: str


@dataclass(frozen=True)
class Advanced:
    """How far the stage is."""

    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """The run has ended; `problem` is why it failed, in a sentence, or empty; `trace` where a defect lies."""

    problem: str = ""
    trace: str = ""


Message = Started | Advanced | Ended


class _Teller:
    """Passes on what a run reports; see `ss4d.pipelines.run.Reporter`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._share = pipe, -1

    def message(self, text: str) -> None:
        """The page has no place for it."""

    def stage_started(self, step: Step) -> None:
        self._share = -1
        self._pipe.send(Started(step.stage))

    def stage_progress(self, done: int, total: int) -> None:
        share = done * STEPS // max(total, 1)
        if share != self._share:
            self._share = share
            self._pipe.send(Advanced(done, total))

    def stage_finished(self, result: StageResult) -> None:
        """The next message tells."""


def work(making: Making, gpu: str | None, pipe: Connection) -> None:
    """Makes the assets that come through a pipe, until it is closed.

    Args:
        making: how.
        gpu: the one device it may use, as CUDA_VISIBLE_DEVICES names it; None for all.
        pipe: gives `Job`s, and takes `Message`s.
    """
    end_with_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # torch reads it when it first looks for devices, which is later
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(_made(making, job, pipe))


def _made(making: Making, job: Job, pipe: Connection) -> Ended:
    options = RunOptions(
        source=job.video,
        out=making.out,
        config=making.config,
        overrides=job.overrides,
        seed=making.seed,
        device=making.device,
        name=job.id,
        engine="direct",
    )
    try:
        run_clip(options, _Teller(pipe))
    except Exception as error:
        if told := explain(error):
            return Ended(told)
        return Ended("a defect of this program, of which the server's terminal tells more", traceback.format_exc())
    return Ended()
