"""A run as it is stored: its record, and the arrays of its stages, read when indexed."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import zarr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.inspect.summary import ArraySummary, StageSummary, html_table, text_table
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run_record import RECORD, refuse_newer
from ss4d.stages.errors import ValueSpecError
from ss4d.storage.archive import Archive
from ss4d.storage.artifact import Artifact
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import read_plain
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, folder_of, open_store

if TYPE_CHECKING:
    import xarray

    from ss4d.stages.types import Value

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FINISHED = ("computed", "reused")  # states of a stage whose result was in the store when the record was written
UNMADE = "to do"  # that of one that the run has not come to


class UnknownTypeError(StoreError):
    """This installation does not have the type of a stage's value; its arrays can still be read one by one."""


class PackageRecord(BaseModel):
    """The installed package that an implementation came from."""

    name: str
    version: str


class RecipeRecord(BaseModel):
    """Everything that decided a stage's result; its hash is the artifact's key."""

    model_config = ConfigDict(extra="allow")

    implementation: str
    revision: int
    parameters: dict[str, Any]
    inputs: dict[str, Key]
    package: PackageRecord | None = None  # None: this program


class StageRecord(BaseModel):
    """What the record says of one stage; costs are known of finished stages only."""

    key: Key
    state: str
    reason: str = ""
    recipe: RecipeRecord
    seconds: float | None = None
    peak_memory_mib: int | None = None
    peak_device_memory_mib: int | None = None


class InputRecord(BaseModel):
    """The file or folder the run was made from."""

    path: str
    sha256: str


class ModelRecord(BaseModel):
    """The weights the run was made with: where they lie, and the hashes of their files by role."""

    location: str
    sha256: dict[str, str] = {}
    notice: str | None = None


class KernelRecord(BaseModel):
    """What did a part of the work."""

    kernel: str


class RunRecord(BaseModel):
    """The content of run.json, checked, since no file is trusted."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    state: str
    input: InputRecord
    seed: int
    device: str
    kernels: dict[str, KernelRecord] = {}  # by part of the work; older versions did not note them
    engine: str
    model: ModelRecord
    config: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    overrides: list[str] = []
    configuration: str | None = None  # a bundled name or a file; older versions did not note it
    started: str
    finished: str | None = None
    wall_seconds: float | None = None
    error: str | None = None
    store: str = "../../store"
    stages: dict[str, StageRecord]
    results: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        """Refuses numbers beyond all floats, which JSON may spell, and which nothing made of them could hold."""
        json.dumps(data, allow_nan=False)
        return data

    @property
    def goals(self) -> list[str]:
        """The stages whose results were wanted; older versions noted none, and wanted the export."""
        goals = self.config.get("goals")
        return [goal for goal in goals if isinstance(goal, str)] if isinstance(goals, list) else ["export"]


def parse_record(data: bytes, where: str) -> RunRecord:
    """The record in the bytes of a run.json.

    Raises:
        StoreError: if they are no such record, naming `where` and the entry that is wrong, or a newer version's.
    """
    refuse_newer(data, where)
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        entry = ".".join(map(str, problem["loc"])) or "its content"
        raise StoreError(
            f"{where} is not a run's record that this version reads ({entry}: {problem['msg']}); "
            "run the clip again under the same name to replace it"
        ) from error


@dataclass(frozen=True, repr=False)
class OpenedStage:
    """One stage of a run; nothing is read before it is asked for."""

    record: StageRecord
    ref: ArtifactRef
    store: ArtifactStore

    @property
    def stored(self) -> bool:
        """Whether its result is in the store."""
        return self.store.contains(self.ref)

    @cached_property
    def artifact(self) -> Artifact:
        """Its result in the store.

        Raises:
            StoreError: if it is not there or was never finished.
        """
        if self.record.state == UNMADE and not self.store.occupied(self.ref):
            raise DamageError(
                f"this run has not made {self.ref.stage} yet", "the same `ss4d run` goes on where it stopped"
            )
        return self.store.open(self.ref)

    def arrays(self) -> tuple[str, ...]:
        """The names of its arrays; none if the stage gives files."""
        return self.artifact.arrays()

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """An array whose chunks are read when it is indexed, e.g. `run["slat"]["feats"][:100]`.

        Raises:
            StoreError: if there is no such array, or it is damaged.
        """
        return self.artifact.array(name)

    def files(self) -> dict[str, Path]:
        """Its plain files by name; none if the stage gives arrays."""
        return self.artifact.files()

    @property
    def scalars(self) -> Mapping[str, Any]:
        """The numbers and words that its value holds besides arrays, by name."""
        return _table(self.artifact.attributes.get("values"))

    @property
    def measures(self) -> Mapping[str, Any]:
        """What was measured of its result when it was made, by name; see `ss4d.pipelines.measures`."""
        return _table(self.artifact.attributes.get("measures"))

    def value_type(self) -> "type[Value]":
        """The type of its value, as the package that adds the stage declares it.

        Raises:
            UnknownTypeError: if no installed package adds such a stage, or the package is broken.
            StoreError: if the stage is not stored, or gives files.
        """
        name = self.ref.stage
        if not (self.arrays() or self.scalars):
            raise StoreError(f"{name} gives files and no value; files() has their paths")
        try:
            stage = installed().stage(name)
            if not stage.gives_files:
                return stage.value_type()
            reason = "the stage of this name that is installed gives files"
        except (ConfigError, PluginError, ImportError, AttributeError) as error:  # the latter: the type is not there
            reason = str(error)
        package = self.record.recipe.package
        maker = f", made by the package {package.name} {package.version}" if package else ""
        raise UnknownTypeError(
            f"the type of the value of {name}{maker}, is not known here ({reason}); its arrays can be read one by one"
        )

    def value(self) -> "Value":
        """Its whole value in memory, as the next stage was given it.

        Raises:
            UnknownTypeError: see `value_type`.
            StoreError: if the stage is not stored, gives files, or an array is not as its type declares.
        """
        from ss4d.pipelines.values import read_value  # torch, which takes a second to import, is needed only here

        kind = self.value_type()
        try:
            return read_value(kind, self.artifact)
        except ValueSpecError as error:
            raise StoreError(f"{self.ref} is not what {kind.__name__} declares: {error}") from error

    def xarray(self) -> "xarray.Dataset":
        """Its arrays as a dataset with named axes, read when indexed; needs the package xarray."""
        from ss4d.pipelines.inspect.xarray_view import dataset  # xarray is optional

        return dataset(self.artifact)

    def summary(self) -> StageSummary:
        """What it holds and cost, without reading a chunk."""
        summary = StageSummary(
            stage=self.ref.stage,
            state=self.record.state,
            key=self.ref.key,
            implementation=self.record.recipe.implementation,
            parents=tuple(self.record.recipe.inputs),
            seconds=self.record.seconds,
            peak_memory_mib=self.record.peak_memory_mib,
        )
        if not self.store.occupied(self.ref):
            return replace(summary, state="missing" if self.record.state in FINISHED else self.record.state)
        try:
            return replace(
                summary,
                state=self.record.state if self.record.state in FINISHED else "stored",
                arrays=tuple(ArraySummary(n, self[n].dtype.name, self[n].shape) for n in self.arrays()),
                num_files=len(self.artifact.attributes["files"]),
                size=self.store.size(self.ref),
            )
        except DamageError as error:
            return replace(summary, state="damaged", problem=str(error))

    def __repr__(self) -> str:
        return text_table([self.summary()])

    def _repr_html_(self) -> str:
        return html_table([self.summary()])


@dataclass(frozen=True, repr=False)
class OpenedRun:
    """A run: `run.record`, and `run.stages` by name in order; `run["slat"]["feats"]` is an array."""

    path: Path
    record: RunRecord
    stages: dict[str, OpenedStage]

    def __getitem__(self, stage: str) -> OpenedStage:
        """The named stage.

        Raises:
            StoreError: if the run has none of that name.
        """
        if stage not in self.stages:
            raise StoreError(f"the run {self.path} has no stage {stage!r}; it has {', '.join(self.stages)}")
        return self.stages[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    @property
    def title(self) -> str:
        """Its name, how it ended, and what it was made from."""
        state = f"{self.record.state}: {self.record.error}" if self.record.error else self.record.state
        return f"{self.record.name} ({state}), from {self.record.input.path}"

    def summaries(self) -> list[StageSummary]:
        """A row for each stage."""
        return [stage.summary() for stage in self.stages.values()]

    def __repr__(self) -> str:
        return f"{self.title}\n{text_table(self.summaries())}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.title)}</p>{html_table(self.summaries())}"


def open_run(path: str | Path, store: str | None = None) -> OpenedRun:
    """The run in the folder `path`, such as output/runs/bird, or in a zip file that `ss4d pack` made.

    Args:
        path: of the run.
        store: where its results are kept; None for the folder that its record names. An address in a record may be
            anybody's: nothing connects to it before it is given here.

    Raises:
        StoreError: if there is no run, its record is damaged or from a newer version, or names an address.
    """
    path = Path(path)
    if path.suffix == ".zip" and path.is_file():
        record = _packed_record(path)
        return OpenedRun(path, record, _stages(record.stages, open_store(path)))
    try:
        data = read_plain(path / RECORD)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path} is not a run: it has no {RECORD}; give the folder of a run, such as output/runs/bird"
        ) from error
    record = parse_record(data, str(path / RECORD))
    return OpenedRun(path, record, _stages(record.stages, open_store(store or path / folder_named(path, record))))


def folder_named(path: Path, record: RunRecord) -> Path:
    """The folder, from the run's, that a record says the results are kept in.

    Raises:
        StoreError: if it names an address, to which nothing connects unasked.
    """
    if (folder := folder_of(record.store)) is None:
        raise StoreError(
            f"the record of {path} says that its results are kept at {record.store}, to which nothing connects before "
            f"you ask for it: --store {shlex.quote(record.store)}"
        )
    return folder


def _packed_record(path: Path) -> RunRecord:
    """The record of the one run in an archive."""
    archive = Archive(path)
    names = [name for name in archive.names("runs/") if name.endswith(f"/{RECORD}")]
    if len(names) != 1:
        raise StoreError(f"{path} holds {len(names)} runs, not one; give a file that `ss4d pack` made")
    return parse_record(archive.read(names[0]), f"{names[0]} in {path}")


def _table(value: object) -> Mapping[str, Any]:
    """An entry of an artifact's description that should be a table; an empty one where it is not."""
    return value if isinstance(value, dict) else {}


def _stages(records: Mapping[str, StageRecord], store: ArtifactStore) -> dict[str, OpenedStage]:
    return {name: OpenedStage(record, ArtifactRef(name, record.key), store) for name, record in records.items()}
