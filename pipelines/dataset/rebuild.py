"""Makes the index anew from the store, even if all other records of the dataset are lost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ss4d.pipelines.dataset.events import Attempt, EventWriter, State, now, version_hash
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.implementation import TRAINING_CLIP
from ss4d.pipelines.measures import MEASURES
from ss4d.pipelines.run_record import versions as packages
from ss4d.stages.types import Progress
from ss4d.storage.errors import DamageError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store

READERS = 16  # at the same time: an object store takes a while to answer
BATCH = 4096


@dataclass
class Rebuilt:
    """Counts of what is in the store.

    Attributes:
        artifacts: complete ones, by stage.
        damaged: incomplete or unreadable ones, by stage.
        clips: of the manifest, that have artifacts.
        unlisted: artifacts of inputs that are not in the manifest.
        unlinked: artifacts whose input is unknown, since the artifacts between were deleted.
    """

    artifacts: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    clips: int = 0
    unlisted: int = 0
    unlinked: int = 0


@dataclass(frozen=True)
class _Described:
    """An artifact with what it says of itself."""

    ref: ArtifactRef
    attributes: Mapping[str, Any]

    @property
    def source(self) -> str | None:
        """The hash of its input; None for an artifact made from other artifacts alone."""
        source: str | None = self.attributes["recipe"].get("source")
        return source

    def row(self, deletions: int) -> tuple[object, ...]:
        """Its row in the index, with the columns `ss4d.pipelines.dataset.index.ARTIFACT`."""
        known = self.attributes
        measured = (known.get("measures", {}).get(name) for name in MEASURES)
        costs = known["seconds"], known["peak_memory"]
        return (self.ref.key, self.ref.stage, "", *costs, "", version_hash(known["versions"]), deletions, *measured)


def rebuild_index(opened: OpenedDataset, progress: Progress) -> Rebuilt:
    """Fills the index from store and events; artifacts that are not in the store are dropped from it.

    Args:
        opened: of the dataset.
        progress: called after each artifact that is read.

    Raises:
        NewerError: if a newer version of the program wrote an artifact.
        StoreError, OSError: if the store cannot be read.
    """
    before = opened.index.keys()
    store = open_store(opened.dataset.location())
    deletions = store.deletions()
    rebuilt = Rebuilt()
    rows: list[tuple[object, ...]] = []
    versions: dict[str, Mapping[str, str]] = {}
    links = _Links()
    refs = [ref for ref in store.refs() if ref.stage != TRAINING_CLIP]
    for done, (ref, artifact) in enumerate(_read(store, refs), 1):
        if artifact is None:
            rebuilt.damaged[ref.stage] += 1
        else:
            rebuilt.artifacts[ref.stage] += 1
            rows.append(artifact.row(deletions))
            versions[str(artifact.row(deletions)[6])] = artifact.attributes["versions"]
            links.add(artifact)
        progress(done, len(refs))
    lost = opened.index.replace(rows, versions, before)
    _tell(opened, store, lost)
    _count_clips(rebuilt, links, opened.rows)
    return rebuilt


def _tell(opened: OpenedDataset, store: ArtifactStore, lost: Sequence[ArtifactRef]) -> None:
    """Records lost artifacts as events, since shards make indexes from the events alone."""
    if lost:
        # The store may have been deleted with its count.
        deletion = store.begin_deletion(least=opened.index.deletions() + 1)
        with EventWriter(opened.dataset.events, packages()) as events:
            for ref in lost:
                state: State = "missed" if store.misses(ref) else "gone"
                events.write(
                    Attempt(clip="", stage=ref.stage, key=ref.key, state=state, time=now(), deletions=deletion)
                )


def _read(store: ArtifactStore, refs: Sequence[ArtifactRef]) -> Iterator[tuple[ArtifactRef, _Described | None]]:
    """Each artifact's description; None for a damaged one."""

    def read(ref: ArtifactRef) -> tuple[ArtifactRef, _Described | None]:
        try:
            artifact = _Described(ref, store.open(ref).attributes)
            artifact.row(0)
            return ref, artifact
        except (DamageError, KeyError, TypeError, AttributeError):  # or attributes of another program
            return ref, None

    remaining = iter(refs)
    with ThreadPoolExecutor(READERS) as readers:
        while batch := list(islice(remaining, BATCH)):
            yield from readers.map(read, batch)


class _Links:
    """Finds the input of each artifact: an artifact has the same one as the artifacts that it was made from."""

    def __init__(self) -> None:
        self._sources: dict[str, str] = {}  # by key
        self._beside: dict[str, list[str]] = {}
        self.keys: list[str] = []

    def add(self, artifact: _Described) -> None:
        self.keys.append(artifact.ref.key)
        if artifact.source is not None:
            self._sources[artifact.ref.key] = artifact.source
        for key in artifact.attributes["inputs"].values():
            self._beside.setdefault(artifact.ref.key, []).append(key)
            self._beside.setdefault(key, []).append(artifact.ref.key)

    def sources(self) -> dict[str, str]:
        """The input's hash by key, for all artifacts whose input is known."""
        found = dict(self._sources)
        waiting = list(found)
        while waiting:
            key = waiting.pop()
            for other in self._beside.get(key, ()):
                if other not in found:
                    found[other] = found[key]
                    waiting.append(other)
        return found


def _count_clips(rebuilt: Rebuilt, links: _Links, rows: Sequence[Row]) -> None:
    sources = links.sources()
    found = [sources.get(key) for key in links.keys]
    wanted, there = {row.sha256 for row in rows}, set(found)
    rebuilt.clips = sum(row.sha256 in there for row in rows if row.sha256 is not None)
    rebuilt.unlinked = found.count(None)
    rebuilt.unlisted = sum(source is not None and source not in wanted for source in found)
