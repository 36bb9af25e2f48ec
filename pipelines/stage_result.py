"""How a job of a run ended, as it is told and as the store remembers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore


@dataclass(frozen=True)
class StageResult:
    """How a job ended: nothing was computed (`reused`), or what it cost; and what can be said of the result."""

    reused: bool
    seconds: float
    peak_memory: int  # bytes, whole process
    peak_device_memory: int  # bytes
    measures: Mapping[str, float] = field(default_factory=dict)  # see `ss4d.pipelines.measures`


def stored_result(store: ArtifactStore, ref: ArtifactRef) -> StageResult | None:
    """How the job ended that made a stored artifact; None if it is not stored.

    Raises:
        StoreError: if a newer version of the program wrote it, or the store cannot be reached.
    """
    if not store.contains(ref):
        return None
    known = store.open(ref).attributes
    costs = known["seconds"], known["peak_memory"], known["peak_device_memory"]
    return StageResult(True, *costs, known.get("measures", {}))  # older artifacts have none
