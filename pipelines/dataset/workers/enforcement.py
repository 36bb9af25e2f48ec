"""Which workers exceed the limits, and which clip is to blame."""

from dataclasses import dataclass

from ss4d.pipelines.dataset.workers.handle import Handle
from ss4d.pipelines.dataset.workers.limits import Limits
from ss4d.pipelines.errors import WorkerError

MIB = 2**20


@dataclass(frozen=True)
class Excess:
    """Why a worker has to be killed.

    Attributes:
        error: TimeLimit or MemoryLimit.
        message: a sentence.
        clip: that took too long; None where any clip of the worker may be to blame.
    """

    error: str
    message: str
    clip: str | None


def find_excess(worker: Handle, limits: Limits) -> Excess | None:
    """The limit that a worker exceeds, by its memory when it was last measured; None if it keeps all."""
    late = _slowest(worker)
    if late is not None and limits.clip_seconds is not None and worker.assignments[late].seconds > limits.clip_seconds:
        message = f"it took longer than the {limits.clip_seconds:g} s that --clip-timeout allows"
        return Excess("TimeLimit", message, late)
    if limits.worker_bytes is not None and worker.memory > limits.worker_bytes and worker.assignments:
        message = (
            f"its worker took {worker.memory / MIB:,.0f} MiB of memory, and --memory allows "
            f"{limits.worker_bytes / MIB:,.0f}"
        )
        return Excess("MemoryLimit", message, None)
    return None


def check_room(worker: Handle, limits: Limits) -> None:
    """Refuses a worker that exceeds the memory limit before it has any clip, which clips would be blamed for.

    Raises:
        WorkerError: saying so.
    """
    limit = limits.worker_bytes
    if limit is not None and worker.look() > limit:
        raise WorkerError(
            f"--memory allows a worker {limit / MIB:,.0f} MiB, but it takes {worker.memory / MIB:,.0f} before it "
            "begins its first clip: allow more"
        )


def _slowest(worker: Handle) -> str | None:
    """The clip that the worker has worked on the longest; None if it has none."""
    return max(worker.assignments, key=lambda clip: worker.assignments[clip].seconds, default=None)
