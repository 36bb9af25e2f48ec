"""The files of a dataset's folder, by name."""

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.prepare import store_location
from ss4d.storage.errors import NewerError
from ss4d.storage.files import read_plain, write_json
from ss4d.storage.store import folder_of, open_store

SCHEMA = 1
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Dataset:
    """The paths of one dataset; `create_dataset` and `open_dataset` give one.

    Attributes:
        folder: of the dataset, absolute.
        store: location of its artifacts: the path of a folder, or a URL.
        asked: whether the user named that location, and not only the file `dataset.json`, which may be anybody's.
        shared: whether other machines may run parts of it at the same time. This process then has an index of its own
            in a temporary file, since SQLite cannot share one across machines.
    """

    folder: Path
    store: str
    shared: bool = False
    asked: bool = False

    def location(self) -> str:
        """Where to open the store.

        Raises:
            ConfigError: if it is an address that only the dataset's description names: nothing connects to it unasked.
        """
        if folder_of(self.store) is None and not self.asked:
            raise ConfigError(
                f"{self.folder / DESCRIPTION} says that its results are kept at {self.store}, to which nothing "
                f"connects before you ask for it: {shlex.join(self.words())}"
            )
        return self.store

    def words(self) -> list[str]:
        """The options of a command that asks for this store; none for a folder."""
        return [] if folder_of(self.store) is not None else ["--store", self.store]

    @property
    def manifest(self) -> Path:
        """A row for each clip, see `ss4d.pipelines.dataset.manifest`."""
        return self.folder / "manifest.parquet"

    @property
    def events(self) -> Path:
        """The folder of events, see `ss4d.pipelines.dataset.events`."""
        return self.folder / "events"

    @property
    def index(self) -> Path:
        """The index of events and store, which can be deleted unless shared; see `ss4d.pipelines.dataset.index`."""
        return self.folder / "index.sqlite"

    @property
    def catalog(self) -> Path:
        """The index as a table for other tools, see `ss4d.pipelines.dataset.catalog`."""
        return self.folder / "catalog.parquet"

    @property
    def metrics(self) -> Path:
        """The progress of a run, replaced every few seconds."""
        return self.folder / "metrics.json"

    def metrics_of(self, shard: str | None) -> Path:
        """The metrics of a shard such as "2/8", which may run on another machine; None for a run of all clips."""
        return self.metrics if shard is None else self.folder / f"metrics-{shard.replace('/', '-of-')}.json"

    @property
    def launches(self) -> Path:
        """The launches: a line for each start and each end of a run."""
        return self.folder / "runs.jsonl"

    @property
    def logs(self) -> Path:
        """The folder of the clips' logs."""
        return self.folder / "logs"

    @property
    def pictures(self) -> Path:
        """The folder of pictures that `ss4d dataset report` has drawn, which can be deleted."""
        return self.folder / "report-pictures"

    def log(self, clip: str) -> Path:
        """The log of one clip."""
        return self.logs / f"{clip}.log"

    def lock(self, name: str) -> Path:
        """The lock file for a part of the dataset, see `ss4d.storage.manifest.locked`."""
        return self.folder / f".{name}.lock"


class _Version(BaseModel):
    schema_version: int = Field(alias="schema")


class _Description(_Version):
    store: str | None


def is_dataset(folder: Path) -> bool:
    """Whether there is a dataset in a folder."""
    return (folder / DESCRIPTION).is_file()


def create_dataset(folder: Path, store: str | None = None) -> Dataset:
    """The dataset in a folder, made if there is none.

    Args:
        folder: a new or an empty one, or that of a dataset.
        store: location of the artifacts, a folder or a URL; None for `store` in the folder, or for the store of a
            dataset that exists already.

    Raises:
        ConfigError: the folder holds other files, or a dataset with another store.
        StoreError: there can be no store at that location, or none to write to.
        NewerError: if a newer version wrote it.
        OSError: if the folder cannot be written.
    """
    if is_dataset(folder):
        return open_dataset(folder, store)
    location = None if store is None else store_location(store)
    if location is not None:
        open_store(location).check_writable()  # a dataset keeps its store, so a wrong one is told before there is any
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give --out a new or an empty one, or that of a dataset")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds other files: give --out a new or an empty folder, or that of a dataset")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("events", "logs"):
        (folder / name).mkdir(exist_ok=True)
    write_json(
        folder / DESCRIPTION,
        {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "store": location,
        },
    )
    return open_dataset(folder, store)


def open_dataset(folder: Path, store: str | None = None, *, shared: bool = False) -> Dataset:
    """The dataset in a folder.

    Args:
        folder: of the dataset.
        store: location of its artifacts, if the user names it; see `Dataset.location`.
        shared: whether other machines may run parts of it at the same time.

    Raises:
        ConfigError: if there is none, or its store is another one.
        NewerError: if a newer version wrote it.
    """
    path = folder / DESCRIPTION
    try:
        data = json.loads(read_plain(path))
        version = _Version.model_validate(data).schema_version
        if version > SCHEMA:
            raise NewerError(
                f"{folder} was made by a newer version of this program (schema {version}, this one knows {SCHEMA}); "
                "upgrade, or make another dataset"
            )
        description = _Description.model_validate(data)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} is not a dataset, since it has no {DESCRIPTION}; `ss4d dataset init` makes one"
        ) from error
    except PermissionError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): make it readable") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged; make the dataset again with `ss4d dataset init` elsewhere") from error
    folder = folder.absolute()
    location = str(folder / "store") if description.store is None else description.store
    if store is not None and store_location(store) != location:
        raise ConfigError(
            f"{folder} has its store at {location}, and cannot have it at {store}: leave --store out, or make another "
            "dataset"
        )
    return Dataset(folder, location, shared, asked=store is not None)
