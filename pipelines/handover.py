"""Values handed over in memory from stage to stage of one clip in one process; they are stored all the same."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ss4d.pipelines.implementation import Deferred
from ss4d.pipelines.plan import RUN, StageJob
from ss4d.storage.refs import ArtifactRef

if TYPE_CHECKING:
    from ss4d.stages.types import Value

as_read = Deferred("ss4d.pipelines.values:as_read")


class Handover:
    """What stages gave, each value until the last job that takes it; each job is given a copy of its own.

    Args:
        jobs: of one clip, in order.
    """

    def __init__(self, jobs: Sequence[StageJob]) -> None:
        self._uses = Counter(ref for job in jobs if job.step.action == RUN for ref in job.inputs.values())
        self._kept: dict[ArtifactRef, Value] = {}

    def keep(self, ref: ArtifactRef, value: "Value") -> None:
        """Keeps what was stored as `ref`, if a later job takes it."""
        if self._uses[ref] > 0:
            self._kept[ref] = as_read(value)

    def take(self, ref: ArtifactRef, read: "Callable[[], Value]") -> "Value":
        """The value stored as `ref`; from `read` if it is not at hand, as when a job is tried again."""
        value = self._kept.pop(ref) if ref in self._kept else read()
        self._uses[ref] -= 1
        self.keep(ref, value)
        return value
