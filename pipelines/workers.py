"""Do many jobs in processes of their own, so that Ctrl-C, a kill or one that dies leaves nothing running."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import CDLL
from typing import TypeVar

from ss4d.pipelines.errors import WorkerError
from ss4d.stages.processors import num_processors

J = TypeVar("J")
R = TypeVar("R")
_SIGNAL_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG of prctl(2)


def results(function: Callable[[J], R], jobs: Sequence[J], workers: int | None) -> Iterator[R]:
    """What `function` gives for each job, in the order in which the processes finish them.

    Left early, such as by Ctrl-C, it waits for the jobs that have begun and drops the others.

    Args:
        function: of a module, or a `partial` of one; a new process must be able to import it.
        jobs: what to call it with.
        workers: processes, each on one thread; None for one per processor.

    Raises:
        WorkerError: if a process died.
    """
    if not jobs:
        return
    count = min(workers or num_processors(), len(jobs))
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _prepare)
    try:
        for future in as_completed(_submitted(pool, function, jobs)):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died, most likely for lack of memory: take fewer with --workers; what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, function: Callable[[J], R], jobs: Sequence[J]) -> list[Future[R]]:
    """Hands the jobs out, which starts the processes."""
    with without_interrupts():
        return [pool.submit(function, job) for job in jobs]


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started in here never see Ctrl-C: it is for this one to answer."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they inherit for their lifetime
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """From now on this process ends when its parent does, also by kill -9: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a child
    if sys.platform == "linux":  # ends even what hangs in a library that lets no other thread run
        CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL)
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _prepare() -> None:
    """What a new process does first."""
    # Not at the top: who only hands jobs out, or has none, should not wait for torch.
    import numba
    import torch

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    end_with_parent()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
