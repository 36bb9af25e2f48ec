"""What a dataset refers to in its store, for those who free what nothing refers to; and how they tell it what went."""

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
    """What the last launch refers to together with those that go on; and of that, what those that go on do.

    Every clip of the manifest counts, chosen by those launches or not.

    Args:
        dataset: which one.
        patience: seconds without an event after which a launch that has not ended no longer counts as going on.

    Raises:
        StoreError, OSError: if manifest or launches cannot be read.
    """
    launches = recorded_launches(dataset)
    if not launches:
        return set(), set()
    digests = [row.sha256 for row in read_manifest(dataset) if row.sha256 is not None]
    going_on = _refs([launch for launch in launches if launch.goes_on(dataset, patience)], digests)
    return going_on | _refs(launches[-1:], digests), going_on


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
    """Hears of each artifact that is about to be deleted, and whether the next run should make it again."""

    def __call__(self, ref: ArtifactRef, *, missed: bool = False) -> None: ...


@contextmanager
def orphaned_references(datasets: Sequence[Dataset]) -> Iterator[DeletionNotice]:
    """Tells datasets which artifacts are about to go, so that their next run makes them again if it needs them.

    Told before and not after: should this process die between, a run merely finds that one is still there.

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
