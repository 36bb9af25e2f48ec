"""What worker processes say of jobs, where a job that ends its process costs no other."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from ss4d.pipelines.errors import WorkerError
from ss4d.pipelines.workers import results
from ss4d.stages.processors import num_processors


class Job(Protocol):
    """Something to do, of a name of its own."""

    @property
    def id(self) -> str: ...


J = TypeVar("J", bound=Job)
A = TypeVar("A")


def answers(
    function: Callable[[J], tuple[str, A]], jobs: Sequence[J], workers: int | None
) -> Iterator[tuple[J, A | None]]:
    """What `function` says of each job beside its name, from processes; None of one that ends its process."""
    left = {job.id: job for job in jobs}
    while left:
        try:
            for name, answer in results(function, list(left.values()), workers):
                yield left.pop(name), answer
        except WorkerError:
            # Jobs are started in order, so the one to blame is among the first: each of those is done by itself.
            for job in list(left.values())[: 2 * (workers or num_processors()) + 2]:
                del left[job.id]
                yield job, _alone(function, job)


def _alone(function: Callable[[J], tuple[str, A]], job: J) -> A | None:
    try:
        ((_, answer),) = results(function, [job], 1)
    except WorkerError:
        return None
    return answer
