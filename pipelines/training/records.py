"""Training records in a folder: `store/` holds an artifact for each clip, `manifest.parquet` a row for each."""

import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import TRAINING_CLIP
from ss4d.pipelines.run_record import versions
from ss4d.pipelines.values import read_value, scalars, write_value
from ss4d.stages.data.clip import HELD_OUT_SEED, REVISION, ClipSpec, TrainingClip
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.motion import fill, motion, moves
from ss4d.stages.errors import ValueSpecError
from ss4d.stages.types import Progress, silent
from ss4d.storage.artifact import Artifact
from ss4d.storage.errors import DamageError, NewerError, StoreError
from ss4d.storage.manifest import locked, read_rows, write_rows
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore

STAGE = TRAINING_CLIP
MANIFEST = "manifest.parquet"
Split = Literal["train", "held_out"]

_log = logging.getLogger("ss4d.records")


class RecordError(StoreError):
    """A record cannot be used; the sentence names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the manifest says of one clip.

    Attributes:
        id: unique in the folder: family and seed, or the path of the imported file.
        family: what the object is; "imported" for people's own.
        seed: what it was made from, or its cameras and light where it was imported.
        frames: number of frames.
        size: side of the input frames and of the views in pixels.
        views: number of other views.
        resolution: grid cells along each axis.
        voxels: surface cells over all frames.
        key: names its artifact; None where there is none.
        seconds: what it took to make.
        split: "train", or "held_out" for what nothing may train on.
        error: why there is no artifact; None where there is one.
        motion: how much the object moves, as a share of its size, see `stages.data.motion`; None where it was not
            measured.
        still: whether nothing moves.
        fill: how much of the grid's side the object takes in a frame, on average.
        animation: of an imported file, and the time out of it, that the clip shows.
    """

    id: str
    family: str
    seed: int
    frames: int
    size: int
    views: int
    resolution: int
    voxels: int
    key: str | None
    seconds: float
    split: str
    error: str | None
    motion: float | None = None
    still: bool | None = None
    fill: float | None = None
    animation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is known of a clip's object beside the clip; see `Row`."""

    motion: float
    still: bool
    fill: float
    animation: str | None = None

    @classmethod
    def of(cls, mesh: AnimatedMesh, animation: str | None = None) -> "Shown":
        """Measured."""
        return cls(
            motion=round(motion(mesh.vertices), 4),
            still=not moves(mesh.vertices),
            fill=round(fill(mesh.vertices), 4),
            animation=animation,
        )


class Records:
    """Training clips on the disk, read one at a time.

    Attributes:
        rows: of the manifest, those that have a clip, in order of split, family and seed.
        skipped: why each record that was skipped so far cannot be used, by its id.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self.folder = folder
        self.rows = tuple(rows)
        self.skipped: dict[str, str] = {}
        self._store = record_store(folder)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TrainingClip]:
        return self.good()

    def read(self, index: int) -> TrainingClip:
        """One clip, its checksums and sizes checked.

        Raises:
            RecordError: naming the record, if it is missing or not as it was written.
            StoreError: if a newer version of the program wrote it.
        """
        row = self.rows[index]
        try:
            return _checked_clip(self._store.open(_ref(row)), row)
        except NewerError:  # nothing is wrong with that record
            raise
        except (StoreError, ValueSpecError, OSError, KeyError) as error:  # KeyError: an array is not listed any more
            raise RecordError(
                f"record {row.id} cannot be used: {_reason(error)}; `{removing_check(self.folder)}` deletes it, and "
                "the command that made it makes it again"
            ) from error

    def read_or_skip(self, index: int) -> TrainingClip | None:
        """One clip as `read` gives it; None, logged once and kept in `skipped`, where the record cannot be used."""
        try:
            return self.read(index)
        except RecordError as error:
            name = self.rows[index].id
            if name not in self.skipped:
                _log.warning("skipped: %s", error)
            self.skipped[name] = str(error)
            return None

    def good(self, indices: Iterable[int] | None = None) -> Iterator[TrainingClip]:
        """The clips at `indices`, or all, without those that cannot be used."""
        for index in range(len(self)) if indices is None else indices:
            if (clip := self.read_or_skip(index)) is not None:
                yield clip


def open_records(folder: Path, split: Split | None = None) -> Records:
    """The clips in a folder that `ss4d data make` or `ss4d data import` filled.

    Args:
        folder: where they are.
        split: only those to train on, or only those that nothing trains on.

    Raises:
        StoreError: if the folder has no readable manifest.
        ConfigError: if it has no such clip.
    """
    rows = [row for row in read_manifest(folder) if row.key is not None and split in (None, row.split)]
    if not rows:
        raise ConfigError(f"{folder} has no {'' if split is None else split + ' '}clips; `ss4d data make` makes some")
    return Records(folder, rows)


def read_manifest(folder: Path) -> list[Row]:
    """Every row, those without a clip included.

    Raises:
        StoreError: if it is missing or damaged.
    """
    try:
        return read_rows(folder / MANIFEST, Row)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{folder} has no {MANIFEST}; fill it with `ss4d data make` or `ss4d data import`") from error
    except StoreError as error:
        raise StoreError(f"{error}; delete it, and the command that filled the folder writes it again") from error


def update_manifest(folder: Path, rows: Iterable[Row], without: Iterable[str] = ()) -> None:
    """Adds rows, in the place of those with the same ids, and takes out those with the ids in `without`.

    An artifact that no row names any more, such as one of an older generator, is deleted.
    """
    with locked(folder / f".{MANIFEST}.lock"):
        old = {row.id: row for row in read_manifest(folder)} if (folder / MANIFEST).exists() else {}
        merged = {**old, **{row.id: row for row in rows}}
        for name in without:
            merged.pop(name, None)
        write_rows(
            folder / MANIFEST, Row, sorted(merged.values(), key=lambda row: (row.split, row.family, row.seed, row.id))
        )
        store = record_store(folder)
        for key in {row.key for row in old.values()} - {row.key for row in merged.values()} - {None}:
            assert key is not None
            store.remove(ArtifactRef(STAGE, key))


def check_records(folder: Path, *, remove: bool = False, progress: Progress = silent) -> tuple[int, dict[str, str]]:
    """Reads every clip: how many there are, and why some, by id, cannot be used. `remove` deletes those."""
    records = open_records(folder)
    bad: dict[str, str] = {}
    for index, row in enumerate(records.rows):
        try:
            records.read(index)
        except RecordError as error:
            bad[row.id] = _reason(error.__cause__)
        progress(index + 1, len(records))
    if remove and bad:
        update_manifest(folder, (), without=bad)
    return len(records), bad


def removing_check(folder: Path) -> str:
    """The command that deletes the damaged records of a folder."""
    return f"ss4d data check {shlex.quote(str(folder))} --remove"


def _reason(error: BaseException | None) -> str:
    """Why a record cannot be used, without the remedies of the store, which are for results of runs."""
    return error.reason if isinstance(error, DamageError) else str(error)


def families(rows: Iterable[Row]) -> Mapping[str, Counter[str]]:
    """How many clips of each family each split has, how many "failed", and in how many of them all is "still"."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        found = counts.setdefault(row.family, Counter())
        found[row.split if row.error is None else "failed"] += 1
        found["still"] += bool(row.still)
    return dict(sorted(counts.items()))


def record_store(folder: Path) -> ArtifactStore:
    """The store of a folder of records."""
    return ArtifactStore(folder / "store")


def split_of(first: int, last: int) -> Split:
    """Whether the clips of these seeds are to train on.

    Raises:
        ConfigError: if some are and some are not.
    """
    if first < HELD_OUT_SEED <= last:
        raise ConfigError(
            f"seeds {first} to {last} reach over {HELD_OUT_SEED}, from where on they are held out for evaluation; "
            "make clips to train on and clips to evaluate on with two commands"
        )
    return "train" if last < HELD_OUT_SEED else "held_out"


def recipe(spec: ClipSpec, mesh: str | None = None) -> dict[str, Any]:
    """All that a clip depends on; `mesh` is the hash of an imported one."""
    return {"stage": STAGE, "revision": REVISION, "spec": spec.decides(), "mesh": mesh}


def stored_row(folder: Path, name: str, made_from: Mapping[str, Any]) -> Row | None:
    """The row, with the id `name`, of a clip that is there already; None where it is to be made."""
    ref = ArtifactRef(STAGE, artifact_key(made_from))
    store = record_store(folder)
    if not store.contains(ref):
        return None
    try:
        return _row(name, store.open(ref))
    except StoreError as error:
        _log.warning("record %s is made again: %s", name, error)
        return None


def write_clip(
    folder: Path,
    name: str,
    made_from: Mapping[str, Any],
    clip: TrainingClip,
    seconds: float,
    shown: Shown | None = None,
) -> Row:
    """Stores a clip and what is known of its object, and says its row, which is not in the manifest yet.

    Raises:
        OSError: if it cannot be written; then nothing of it is kept.
    """
    ref = ArtifactRef(STAGE, artifact_key(made_from))
    store = record_store(folder)
    values = scalars(clip)
    with store.create(ref, replace=True) as writer:  # what lies there has damaged attributes, see `stored_row`
        write_value(writer, clip, whole=True)
        writer.commit(
            {
                "recipe": dict(made_from),
                "values": dict(values),
                "values_hash": artifact_key(values),  # arrays carry checksums, attributes do not
                "versions": versions(),
                "seconds": round(seconds, 3),
                "shown": None if shown is None else asdict(shown),
            }
        )
    return _row(name, store.open(ref))


def _row(name: str, artifact: Artifact) -> Row:
    """What the manifest says of a stored clip; reads none of its arrays.

    Raises:
        StoreError: if its attributes are damaged: they carry no checksum of the store's.
    """
    try:
        shapes = {key: array["shape"] for key, array in artifact.attributes["arrays"].items()}
        values = artifact.attributes["values"]
        if artifact_key(values) != artifact.attributes["values_hash"]:
            raise StoreError(f"{artifact.ref} is damaged: its attributes are not what they were")
        return Row(
            id=name,
            family=values["family"],
            seed=values["seed"],
            frames=shapes["frames"][0],
            size=shapes["frames"][1],
            views=shapes["views"][0],
            resolution=values["resolution"],
            voxels=shapes["coords"][0],
            key=artifact.ref.key,
            seconds=artifact.attributes["seconds"],
            split=split_of(values["seed"], values["seed"]),
            error=None,
            **_shown(artifact.attributes.get("shown")),
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # JSON with other content
        raise StoreError(f"{artifact.ref} is damaged: its attributes lack {error}") from error


def _shown(held: Any) -> dict[str, Any]:
    """What is known of a stored clip's object; nothing of one that was stored before this was measured."""
    return {} if held is None else asdict(Shown(**held))


def _checked_clip(artifact: Artifact, row: Row) -> TrainingClip:
    """The clip, if it is what was written and what the manifest says."""
    if (found := _row(row.id, artifact)) != row:
        different = [name for name, value in asdict(found).items() if value != getattr(row, name)]
        raise StoreError(f"{artifact.ref} is not what the manifest says: {', '.join(different)} differ")
    clip = read_value(TrainingClip, artifact)
    cells = clip.coords[:, 1:]
    size = torch.tensor([clip.num_frames] + [clip.resolution] * 3)
    if bool(((cells < 0) | (cells >= size)).any()):
        raise StoreError(f"{artifact.ref} is damaged: voxels lie outside its grid of {clip.resolution}")
    return clip


def _ref(row: Row) -> ArtifactRef:
    assert row.key is not None  # `open_records` keeps no others
    return ArtifactRef(STAGE, row.key)
