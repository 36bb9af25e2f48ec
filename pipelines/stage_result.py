"""How a job of a run ended, as it is told and as the store remembers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore


@dataclass(frozen=True)
class StageResult:
    """How a job ended: nothing was computed (`reused`), or what it cost; and what can be said of the result.

    Attributes:
        reused: whether the result was there.
        seconds: that it took.
        peak_memory: of the whole process, in bytes.
        peak_device_memory: in bytes.
        measures: of the result, see `ss4d.pipelines.measures`.
        deletions: that the store had seen before anybody looked whether the result was there.
    """

    reused: bool
    seconds: float
    peak_memory: int
    peak_device_memory: int
    measures: Mapping[str, float] = field(default_factory=dict)
    deletions: int = 0


def stored_result(store: ArtifactStore, ref: ArtifactRef) -> StageResult | None:
    """How the job ended that made a stored artifact; None if it is not stored.

    Raises:
        StoreError: if a newer version of the program wrote it, or the store cannot be reached.
    """
    deletions = store.deletions()  # before: what is deleted after this look must not seem to be made after it
    if not store.contains(ref):
        return None
    known = store.open(ref).attributes
    costs = known["seconds"], known["peak_memory"], known["peak_device_memory"]
    return StageResult(True, *costs, known.get("measures", {}), deletions)  # older artifacts have no measures
