"""The workers of a run: starts them, waits for their messages, replaces those that were lost, and ends them."""

from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from ss4d.pipelines.dataset.workers.handle import Handle
from ss4d.pipelines.dataset.workers.progress import WorkerView
from ss4d.pipelines.dataset.workers.worker import Setup
from ss4d.pipelines.errors import WorkerError

MOST_FALSE_STARTS = 3  # workers in a row that end before they start a clip


class WorkerPool:
    """As many workers as there are entries in `gpus`; `start` starts them.

    Args:
        setup: of the run.
        gpus: one entry a worker: the device it may use, as CUDA_VISIBLE_DEVICES names it; None for all.
    """

    def __init__(self, setup: Setup, gpus: Sequence[str | None]) -> None:
        self._setup, self._gpus = setup, gpus
        self._workers: list[Handle] = []
        self._false_starts = 0

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._workers))

    def start(self) -> None:
        """Starts all workers."""
        for gpu in self._gpus:
            self._workers.append(Handle(self._setup, gpu))

    @property
    def at_work(self) -> bool:
        """Whether any worker has a clip."""
        return any(worker.assignments for worker in self._workers)

    def with_news(self, seconds: float) -> list[Handle]:
        """The workers that have sent a message or have ended; waits up to `seconds` for the first."""
        pipes = wait([worker.pipe for worker in self._workers], seconds)
        return [worker for worker in self._workers if worker.pipe in pipes]

    def stop(self) -> None:
        """Tells all workers to start no further stage."""
        for worker in self._workers:
            worker.stop()

    def remove(self, worker: Handle, *, replace: bool) -> None:
        """Removes a worker that has ended; with `replace`, starts another one on its device."""
        self._workers.remove(worker)
        if replace:
            self._workers.append(Handle(self._setup, worker.gpu))

    def works(self) -> None:
        """A clip has ended in a worker, so workers can start."""
        self._false_starts = 0

    def false_start(self, message: str) -> None:
        """A worker ended before it started a clip; `message` says how.

        Raises:
            WorkerError: several did so in a row.
        """
        self._false_starts += 1
        if self._false_starts == MOST_FALSE_STARTS:
            raise WorkerError(
                f"{MOST_FALSE_STARTS} workers in a row ended before they started a clip; the last one: {message}; "
                "most likely there is too little memory: take fewer with --workers"
            )

    def close(self) -> None:
        """Waits for all workers to end by themselves, and kills those that do not."""
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.leave()
        self._workers = []

    def kill(self) -> None:
        """Kills all workers that are left."""
        for worker in self._workers:
            worker.kill()

    def views(self) -> list[WorkerView]:
        """The clips of each worker, for the watcher."""
        return [worker.view() for worker in self._workers]
