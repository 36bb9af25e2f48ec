"""Keeping a store in order: check it, free what no run needs, and pack a run into one file.

What a run needs stands in its record, `run.json`, and in a note in the store, from before it computes anything until
another run takes its name; a dataset needs what its launches recorded, see `ss4d.pipelines.dataset.references`.
Records that lie where they can be looked at are believed; of others the notes are.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.pipelines.dataset.references import (
    dataset_references,
    has_run,
    known_digests,
    needed_recipes,
    orphaned_references,
)
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import TRAINING_CLIP
from ss4d.pipelines.inspect.opened import open_run, parse_record
from ss4d.pipelines.one_writer import LOCKS
from ss4d.pipelines.output_file import check_output_file
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.store.known_runs import Users, known_datasets, needs_of, users_of
from ss4d.pipelines.store_notes import BEGUN, identity_of, note_launch
from ss4d.storage.archive import archive_name, write_archive
from ss4d.storage.artifact import remedy
from ss4d.storage.errors import StoreError
from ss4d.storage.files import read_plain, real_path
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore, folder_of, open_store
from ss4d.storage.verify import Findings, problems, verify

if TYPE_CHECKING:
    from ss4d.stages.types import Progress

NICKNAMES = {"tokens": "conditioning"}  # what to call the artifacts that are large and quickly made again
ABANDONED = 7 * 24 * 3600  # seconds without a change after which nothing is thought to be in progress any more
PACKED_STORE = "../../store"  # from a run's folder in an archive


def existing_store(location: str) -> ArtifactStore:
    """The store at a place where there is one.

    Raises:
        ConfigError: if there is no such folder.
        StoreError: see `ss4d.storage.store.open_store`.
    """
    if (folder := folder_of(location)) is not None and not folder.exists():
        raise ConfigError(f"there is no store at {location}: give a folder such as output/store, a URL, or a .zip file")
    return open_store(location)


def _changeable_store(location: str) -> ArtifactStore:
    """The same; raises StoreError where artifacts can only be read, too."""
    store = existing_store(location)
    store.check_writable()
    return store


def verify_store(location: str, *, repair: bool, progress: "Progress") -> Findings:
    """Checks every artifact; `repair` deletes what is damaged or was made from damage, for the next run to make again.

    Raises:
        ConfigError, StoreError, OSError: if there is no store, or it cannot be read, or not be written to repair it.
    """
    store = _changeable_store(location) if repair else existing_store(location)
    findings = verify(store, progress)
    if findings.unexpected and not findings.num_artifacts:
        raise ConfigError(
            f"{location} holds no artifact, but {findings.unexpected[0]}: give the store itself, such as output/store"
        )
    if repair and findings.damaged:
        with orphaned_references(known_datasets(store), store.begin_deletion()) as tell:
            for ref in (*findings.damaged, *findings.suspect):
                tell(ref, missed=True)
                store.remove(ref, missed=True)
    return findings


@dataclass(frozen=True)
class Unused:
    """An artifact that can go."""

    ref: ArtifactRef
    size: int  # bytes
    reason: str


@dataclass
class Sorting:
    """What of a store can go, and what stays.

    Attributes:
        unused: artifacts that can go.
        abandoned: bytes of unfinished artifacts that nobody works on any more, by name.
        recent: bytes of artifacts that no run refers to, but that were made a short time ago.
        kept: bytes of all the others: runs refer to them, or they are training clips.
        doubts: sentences on runs that could not be looked at, and are kept.
    """

    unused: list[Unused] = field(default_factory=list)
    abandoned: dict[str, int] = field(default_factory=dict)
    recent: dict[ArtifactRef, int] = field(default_factory=dict)
    kept: dict[ArtifactRef, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class References:
    """What runs refer to.

    Attributes:
        used: the artifacts.
        running: of these, what unfinished runs refer to, and those of which that is not known.
        doubts: sentences on records that cannot be read, whose notes tell what is kept for them.
    """

    used: frozenset[ArtifactRef]
    running: frozenset[ArtifactRef]
    doubts: tuple[str, ...] = ()


def collect(
    location: str,
    *,
    runs: Sequence[Path] = (),
    forget: Sequence[str] = (),
    drop: Sequence[str] = (),
    min_age: float,
    dry_run: bool,
    progress: "Progress",
    abandoned: float = ABANDONED,
) -> Sorting:
    """Deletes the artifacts that no run refers to, and abandoned unfinished ones; gives what goes and what stays.

    Args:
        location: the store.
        runs: further folders of runs, runs, or datasets; of a store in a folder, those in `../runs` and the dataset
            that it is in are always read, and so are those that left a note in the store when they began.
        forget: patterns of noted folders that cannot be looked at from here and no longer count.
        drop: stages, or "tokens", whose artifacts go even if runs refer to them, unless such a run is unfinished.
        min_age: seconds that an artifact without a run is kept after it was made.
        dry_run: delete nothing.
        progress: told how many artifacts are deleted.
        abandoned: seconds without a change after which an unfinished artifact counts as abandoned.

    Raises:
        ConfigError: if there is no store, no folder of runs, or no such stage.
        StoreError: if a record is damaged that left no note, since what its run refers to is then unknown; nothing is
            deleted.
        OSError: if something cannot be deleted or written.
    """
    store = _changeable_store(location)
    begun = store.place.text_of(BEGUN)
    users = users_of(store, runs, forget)
    refers = references(users)
    sorting = sort_artifacts(store, refers, _dropped(drop, store), min_age)
    sorting.abandoned = store.place.abandoned(abandoned)
    sorting.doubts = [*refers.doubts, *_elsewhere(users)]
    if dry_run:
        return sorting
    gone = []
    if sorting.unused:
        deletion = store.begin_deletion()
        told = users.datasets
    else:
        deletion, told = 0, []
    with orphaned_references(told, deletion) as tell:
        for index, unused in enumerate(sorting.unused):
            if (now := store.place.text_of(BEGUN)) != begun:  # a run has begun meanwhile
                begun, users = now, users_of(store, runs, forget)
                refers = references(users)
            if unused.ref not in (refers.running if unused.reason == DROPPED else refers.used):
                tell(unused.ref)
                store.remove(unused.ref)
                gone.append(unused)
            progress(index + 1, len(sorting.unused))
    for name in sorting.abandoned:
        store.place.discard(name)
    sorting.unused = gone
    _tidy_notes(store, users)
    return sorting


NO_RUN, DROPPED = "no run refers to it", "dropped; a run makes it again if it needs it"


def sort_artifacts(store: ArtifactStore, refers: References, drop: frozenset[str], min_age: float) -> Sorting:
    """Sorts the artifacts of a store, without reading them."""
    sorting, now = Sorting(), store.place.now()
    for ref in store.refs():
        try:
            age = now - store.place.modified(ref)
        except FileNotFoundError:  # gone meanwhile
            continue
        size = store.size(ref)
        if ref.stage in drop and ref not in refers.running:
            sorting.unused.append(Unused(ref, size, DROPPED))
        elif ref in refers.used or ref.stage == TRAINING_CLIP:  # no run makes or uses training clips
            sorting.kept[ref] = size
        elif age < min_age:
            sorting.recent[ref] = size
        else:
            sorting.unused.append(Unused(ref, size, NO_RUN))
    return sorting


def references(users: Users) -> References:
    """What the runs and datasets that use a store refer to; each is read once.

    Raises:
        StoreError: if a record is damaged, or a newer version's, and its run left no note.
    """
    used: set[ArtifactRef] = set()
    running: set[ArtifactRef] = set()
    doubts: list[str] = []
    for note in users.unseen.values():
        used |= (needs := needs_of(note))
        running |= needs
    for dataset in users.datasets:
        needed, unfinished = dataset_references(dataset, ABANDONED)
        used |= needed
        running |= unfinished
    launched, noted = _launched(users), set()
    for note in users.seen.values():  # what was a dataset, and is none that can be read, or has lost its launches
        if note.recipes and real_path(note.folder) not in launched:
            running |= (needs := needs_of(note))
            used |= needs
            noted.add(real_path(note.folder))
            doubts.append(f"{note.folder} has no record of its launches; what they noted in the store is kept")
    for dataset in users.datasets:
        if real_path(dataset.folder) not in launched | noted and has_run(dataset):
            raise StoreError(
                f"{dataset.launches} is not there, though clips were run; nothing is deleted while it is unknown what "
                "the dataset needs: bring it back, or run the dataset again"
            )
    for path in (path for folder in users.folders for path in _records(folder)):
        try:
            refs, unfinished_run = _read_references(path)
        except (StoreError, OSError) as error:
            note_on = users.note_on(path.parent)
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            if missing and not _may_come_back(path, noted=note_on is not None):  # no run, or deleted meanwhile
                continue
            said = f"{path} is not there, though its folder is" if missing else str(error)
            if note_on is None:
                raise StoreError(f"{said}; nothing is deleted while it is unknown what that run refers to") from error
            doubts.append(f"{said}; what that run noted in the store when it began is kept")
            refs, unfinished_run = needs_of(note_on), True
        used |= refs
        if unfinished_run:
            running |= refs
    return References(frozenset(used), frozenset(running), tuple(dict.fromkeys(doubts)))


def _launched(users: Users) -> set[Path]:
    """The folders of the datasets that have a record of their launches."""
    return {real_path(dataset.folder) for dataset in users.datasets if dataset.launches.exists()}


def _may_come_back(path: Path, *, noted: bool) -> bool:
    """Whether a record that is not there may only be away: a link leads nowhere, or the folder of a run is left."""
    return path.is_symlink() or path.parent.is_symlink() or (noted and os.path.lexists(path.parent))


def _read_references(path: Path) -> tuple[set[ArtifactRef], bool]:
    """What the run with a record refers to, and whether it goes on."""
    data = read_plain(path)
    record = parse_record(data, str(path))
    for stage, known in json.loads(data)["stages"].items():  # a key is the hash of its recipe
        if artifact_key(known["recipe"]) != known["key"]:
            raise StoreError(f"{path} is not what it was: the key of {stage} does not belong to its recipe")
    goes_on = record.state == "running" and path.stat().st_mtime > time.time() - ABANDONED
    return {ArtifactRef(stage, known.key) for stage, known in record.stages.items()}, goes_on


def _records(folder: Path) -> list[Path]:
    """Where the records of the runs in a folder would be, or that of the run that it is itself."""
    if (folder / RECORD).exists():
        return [folder / RECORD]
    return [folder / name / RECORD for name in sorted(os.listdir(folder)) if name != LOCKS]


def _elsewhere(users: Users) -> list[str]:
    """A sentence on each folder of runs that cannot be looked at from here."""
    places = {f"{note.host}:{note.folder}": note for note in users.unseen.values()}
    return [
        f"what runs in {note.folder} on {note.host} noted when they began is kept, since they cannot be looked at from "
        f"here; if they are gone, say so with --forget {place}"
        for place, note in sorted(places.items())
    ]


def _tidy_notes(store: ArtifactStore, users: Users) -> None:
    """Deletes the notes of runs that are gone; what datasets need is noted as it is now."""
    for name in users.forgotten:
        store.place.note(name, None)
    current: set[str] = set()
    for dataset in users.datasets:
        digests = known_digests(dataset)
        for recipes in needed_recipes(dataset, ABANDONED)[0]:
            current.add(note_launch(store, dataset.folder, recipes, digests))
    places = {identity_of(folder): folder for folder in users.folders}
    datasets = _launched(users)
    for name, note in users.seen.items():
        place = places.get(note.identity)
        if note.identity is None or place is None or name in current:
            continue
        if (real_path(place) in datasets) if not note.run else _is_gone(place / note.run):
            store.place.note(name, None)


def _is_gone(path: Path) -> bool:
    """Whether there is certainly no such folder."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _dropped(names: Sequence[str], store: ArtifactStore) -> frozenset[str]:
    """The stages that --drop names: any that is installed, or that the store has artifacts of."""
    known = [*NICKNAMES, *installed().stages()]
    if not set(names) <= set(known):
        known += sorted({ref.stage for ref in store.refs()} - {*known, TRAINING_CLIP})
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--drop takes {', '.join(known)}; got {', '.join(unknown)}")
    return frozenset(NICKNAMES.get(name, name) for name in names)


@dataclass(frozen=True)
class Packed:
    """What an archive holds: bytes of each stage's artifact, and the stages left out, as they are not stored."""

    sizes: Mapping[str, int]
    left_out: Sequence[str]


def pack_run(run: Path, target: Path, progress: "Progress", store: str | None = None) -> Packed:
    """Writes a run's record and all its artifacts that are stored into a zip file, which `open_store` reads.

    What is not stored, such as dropped tokens, is left out.

    Unpacked, it is an output folder like any other.

    Args:
        run: its folder.
        target: the zip file.
        progress: told of each stage.
        store: where the run's results are kept, see `open_run`.

    Raises:
        ConfigError: if `run` is no folder, or `target` is no file or has another ending than .zip.
        StoreError: if there is no run, or an artifact is damaged.
        OSError: if the file cannot be written; what was there before stays.
    """
    if run.is_file():
        raise ConfigError(f"{run} is a file: give the folder of a run, such as output/runs/bird")
    if target.suffix != ".zip":
        raise ConfigError(f"the file to pack into must end in .zip; got {target}")
    check_output_file(target)
    opened = open_run(run, store)
    record = json.loads(read_plain(run / RECORD)) | {"store": PACKED_STORE}
    text = (json.dumps(record, indent=2) + "\n").encode()
    members = {f"runs/{real_path(run).name}/{RECORD}": lambda: text}
    sizes: dict[str, int] = {}
    for index, (name, stage) in enumerate(opened.stages.items()):
        if found := problems(stage.store, stage.ref):
            raise StoreError(f"{stage.ref} is damaged ({found[0]}); {remedy(stage.store.location)}; then pack")
        if (parts := stage.store.place.parts(stage.ref)) is not None:
            files = parts.sizes()
            members |= {archive_name(stage.ref, file): partial(parts.read, file) for file in files}
            sizes[name] = sum(files.values())
        progress(index + 1, len(opened.stages))
    write_archive(target, members)
    return Packed(sizes, [name for name in opened.stages if name not in sizes])
