"""Which artifacts a dataset refers to, for garbage collection, and the events of the deleted ones."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from ss4d.pipelines.dataset.events import Attempt, EventWriter, State, now, read_events
from ss4d.pipelines.dataset.keys import recorded_keys
from ss4d.pipelines.dataset.launches import LaunchRecipes, all_launches
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import read_manifest
from ss4d.pipelines.run_record import versions
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef


def needed_recipes(dataset: Dataset, patience: float) -> tuple[list[LaunchRecipes], list[LaunchRecipes]]:
    """The recipes of the last launch and of all running ones, each once; and those of the running launches alone.

    Args:
        dataset: of the launches.
        patience: as for `dataset_references`.

    Raises:
        StoreError, OSError: if a launch cannot be read.
    """
    launches = all_launches(dataset)
    running = [launch.recipes for launch in launches if launch.is_running(dataset, patience)]
    return _different([*running, *(launch.recipes for launch in launches[-1:])]), _different(running)


def has_run(dataset: Dataset) -> bool:
    """Whether events tell of attempts at its clips, and not only of what was deleted.

    Raises:
        NewerError, OSError: if events cannot be read.
    """
    states = {"done", "failed", "reused"}
    return any(attempt.state in states for batch in read_events(dataset.events, {}) for attempt in batch.attempts)


def dataset_references(dataset: Dataset, patience: float) -> tuple[set[ArtifactRef], set[ArtifactRef]]:
    """The artifacts that the last launch and all running launches refer to; and those of the running launches alone.

    Every clip of the manifest counts, whether those launches chose it or not.

    Args:
        dataset: that refers to them.
        patience: seconds without an event after which a launch that has not ended no longer counts as running.

    Raises:
        StoreError, OSError: if manifest or launches cannot be read.
    """
    needed, running = needed_recipes(dataset, patience)
    if not needed:
        return set(), set()
    digests = known_digests(dataset)
    return recorded_references(needed, digests), recorded_references(running, digests)


def known_digests(dataset: Dataset) -> list[str]:
    """Of every clip of the manifest whose content is known. Raises as `read_manifest` does."""
    return [row.sha256 for row in read_manifest(dataset) if row.sha256 is not None]


def recorded_references(launches: Iterable[LaunchRecipes], digests: Sequence[str]) -> set[ArtifactRef]:
    """The artifacts that launches with these recipes make of clips with these digests.

    Raises:
        StoreError: if they are no recipes.
    """
    try:
        return {
            ArtifactRef(stage, key)
            for recipes in launches
            for stage, keys in recorded_keys(recipes, digests).items()
            for key in keys
        }
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the recipes of a run of a dataset cannot be read ({error!r})") from error


def _different(recipes: Iterable[LaunchRecipes]) -> list[LaunchRecipes]:
    found: list[LaunchRecipes] = []
    for given in recipes:
        if given not in found:
            found.append(given)
    return found


class DeletionNotice(Protocol):
    """Is called for each artifact that is about to be deleted; `missed` if the next run is to make it again."""

    def __call__(self, ref: ArtifactRef, *, missed: bool = False) -> None: ...


@contextmanager
def orphaned_references(datasets: Sequence[Dataset], deletion: int) -> Iterator[DeletionNotice]:
    """Records in datasets which artifacts are deleted, so that their next run makes them again if it needs them.

    Recorded before the deletion: if this process dies in between, a run merely finds an artifact that is still there.

    Args:
        datasets: that are told.
        deletion: its number, see `ArtifactStore.begin_deletion`.

    Raises:
        OSError: if a dataset cannot be written.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(EventWriter(dataset.events, versions())) for dataset in datasets]

        def tell(ref: ArtifactRef, *, missed: bool = False) -> None:
            state: State = "missed" if missed else "gone"
            for writer in writers:
                writer.write(
                    Attempt(clip="", stage=ref.stage, key=ref.key, state=state, time=now(), deletions=deletion)
                )

        yield tell
