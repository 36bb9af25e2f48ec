"""Which artifacts a dataset refers to, for garbage collection, and the events of the deleted ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from ss4d.pipelines.dataset.events import Attempt, EventWriter, State, now
from ss4d.pipelines.dataset.keys import recorded_keys
from ss4d.pipelines.dataset.launches import RecordedLaunch, recorded_launches
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import read_manifest
from ss4d.pipelines.run_record import versions
from ss4d.storage.refs import ArtifactRef


def dataset_references(dataset: Dataset, patience: float) -> tuple[set[ArtifactRef], set[ArtifactRef]]:
    """The artifacts that the last launch and all running launches refer to; and those of the running launches alone.

    Every clip of the manifest counts, whether those launches chose it or not.

    Args:
        dataset: that refers to them.
        patience: seconds without an event after which a launch that has not ended no longer counts as running.

    Raises:
        StoreError, OSError: if manifest or launches cannot be read.
    """
    launches = recorded_launches(dataset)
    if not launches:
        return set(), set()
    digests = [row.sha256 for row in read_manifest(dataset) if row.sha256 is not None]
    running = _refs([launch for launch in launches if launch.is_running(dataset, patience)], digests)
    return running | _refs(launches[-1:], digests), running


def _refs(launches: Iterable[RecordedLaunch], digests: Sequence[str]) -> set[ArtifactRef]:
    different: list[Mapping[str, Mapping[str, Any]]] = []
    for launch in launches:
        if launch.recipes not in different:
            different.append(launch.recipes)
    return {
        ArtifactRef(stage, key)
        for recipes in different
        for stage, keys in recorded_keys(recipes, digests).items()
        for key in keys
    }


class DeletionNotice(Protocol):
    """Is called for each artifact that is about to be deleted; `missed` if the next run is to make it again."""

    def __call__(self, ref: ArtifactRef, *, missed: bool = False) -> None: ...


@contextmanager
def orphaned_references(datasets: Sequence[Dataset]) -> Iterator[DeletionNotice]:
    """Records in datasets which artifacts are deleted, so that their next run makes them again if it needs them.

    Recorded before the deletion: if this process dies in between, a run merely finds an artifact that is still there.

    Raises:
        OSError: if a dataset cannot be written.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(EventWriter(dataset.events, versions())) for dataset in datasets]

        def tell(ref: ArtifactRef, *, missed: bool = False) -> None:
            state: State = "missed" if missed else "gone"
            for writer in writers:
                writer.write(Attempt(clip="", stage=ref.stage, key=ref.key, state=state, time=now()))

        yield tell
