"""The assets of a dataset's finished clips in plain folders: DIR/ID holds a clip's files and what they were made from.

A clip's folder is made under a temporary name and renamed: one that exists is complete, and is not made again.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.dataset.select import Choice, select
from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.pipelines.inspect.add_formats import export_config
from ss4d.pipelines.inspect.asset import EXPORT, MESH, read_scene
from ss4d.pipelines.registry import installed
from ss4d.pipelines.results import result_name
from ss4d.pipelines.values import read_value
from ss4d.stages.export.config import ExportConfig, FormatName, needs_meshes
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.packages import check_packages
from ss4d.stages.types import Progress, Value, silent
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import (
    check_name,
    delete,
    is_orphan,
    link_or_copy,
    listed,
    owned_name,
    read_json,
    sync_tree,
    write_bytes,
    write_json,
)
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, folder_of, open_store

ABOUT = "asset.json"
SCHEMA = 2
WRITERS = 8  # clips at the same time: an object store takes a while to answer
BATCH = 64  # clips started before the progress is reported


@dataclass
class Exported:
    """Counts of the chosen clips.

    Attributes:
        made: that were exported.
        kept: that had been exported before.
        unfinished: that have no asset.
        damaged: why an asset cannot be read, by the clip's id.
    """

    made: int = 0
    kept: int = 0
    unfinished: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asset:
    """A finished clip, the artifacts of its goals, and those that an export takes, by stage."""

    row: Row
    refs: Sequence[ArtifactRef]
    taken: Mapping[str, ArtifactRef]

    @property
    def keys(self) -> dict[str, str]:
        """Of the artifacts, by stage."""
        return {ref.stage: ref.key for ref in self.refs}


@dataclass(frozen=True)
class More:
    """Formats to write besides the files of the goals; `max_gaussians` of a frame, None: as the export has it."""

    formats: Sequence[FormatName] = ()
    max_gaussians: int | None = None


@dataclass(frozen=True)
class _Target:
    """Where assets go, and whether as hard links or copies; `said` holds the fields that all `asset.json` share.

    `config` is of the formats to write besides; `writing` is held meanwhile, so that one clip at a time is in memory.
    """

    folder: Path
    store: ArtifactStore
    links: bool
    said: Mapping[str, Any]
    config: ExportConfig
    writing: Lock = field(default_factory=Lock)


def export_assets(
    opened: OpenedDataset,
    folder: Path,
    *,
    where: str | None,
    copies: bool,
    progress: Progress,
    more: More | None = None,
) -> Exported:
    """Puts the files of each finished clip into its folder in `folder`, unless they are there already.

    A folder that an earlier export made of another result is replaced as a whole.

    Args:
        opened: the dataset, for a configuration.
        folder: made if missing.
        where: an SQLite expression that chooses clips, see `ss4d.pipelines.dataset.select`.
        copies: copies even where the files could be hard links into the store.
        progress: called after each clip.
        more: formats to write besides, of what is stored: nothing is computed again; None: no other ones.

    Raises:
        ConfigError: if `where` is not valid, no goal gives files, or other files lie in the way.
        InputError: if the package of a format is not installed.
        StoreError, OSError: if the store cannot be read or the folder not written; what is there is whole.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: give the folder that the assets are to go to")
    check_packages(more.formats if more else ())
    goals = opened.keys.goals
    if not any(installed().stage(goal).output is None for goal in goals):
        raise ConfigError(
            f"what is asked of the clips, {', '.join(goals)}, gives arrays, which stay in the store, and no files: "
            "ask for a stage that gives files, such as with --set goals=[export]"
        )
    location = opened.dataset.location()
    rows = select(opened.rows, Choice(where=where), opened.index, opened.keys)
    assets = _finished(opened, rows)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    said = {"schema": SCHEMA, "store": location, **opened.settings.recorded()}
    links = not copies and folder_of(location) is not None
    more = more or More()
    config = export_config(opened.keys.config.described().get(EXPORT), more.formats, more.max_gaussians)
    if needs_meshes(config) and MESH not in opened.keys.stages:
        raise ConfigError(
            "a format is asked for that is made of meshes, and nothing asks for these: with --goal export --goal mesh, "
            "`ss4d dataset run` makes them, and this command takes them"
        )
    target = _Target(folder, open_store(location), links, said, config)
    exported = Exported(unfinished=len(rows) - len(assets))
    for done, (asset, outcome) in enumerate(_each(target, assets), 1):
        if isinstance(outcome, DamageError):
            exported.damaged[asset.row.id] = str(outcome)
        elif outcome:
            exported.made += 1
        else:
            exported.kept += 1
        progress(done, len(assets))
    return exported


def _finished(opened: OpenedDataset, rows: Sequence[Row]) -> list[_Asset]:
    known = [row for row in rows if row.sha256 is not None]
    goals = opened.keys.goals
    made = opened.keys.of([row.sha256 or "" for row in known])
    complete = opened.index.complete(goals)
    stages = opened.keys.stages
    taken = {*(stages[EXPORT].inputs if EXPORT in stages else stages), *({MESH} & stages.keys())}
    assets = []
    for number, row in enumerate(known):
        refs = [ArtifactRef(goal, made[goal][number]) for goal in goals]
        if all(ref.key in complete[ref.stage] for ref in refs):
            inputs = {stage: ArtifactRef(stage, made[stage][number]) for stage in stages if stage in taken}
            assets.append(_Asset(row, refs, inputs))
    return assets


def _each(target: _Target, assets: Sequence[_Asset]) -> Iterator[tuple[_Asset, bool | DamageError]]:
    """Each asset with whether it had to be put into its place, or why it cannot be."""

    def export(asset: _Asset) -> bool | DamageError:
        try:
            return _export(target, asset)
        except DamageError as error:
            return error

    remaining = iter(assets)
    with ThreadPoolExecutor(WRITERS) as writers:
        while batch := list(islice(remaining, BATCH)):
            yield from zip(batch, writers.map(export, batch), strict=True)


def _export(target: _Target, asset: _Asset) -> bool:
    """Puts an asset into its place; False if it is there.

    Raises:
        DamageError: if the store has it no more as it was.
    """
    place = target.folder / asset.row.id
    former = _keys_at(place)
    if former == (asset.keys, _more(target.config)):
        return False
    made = _aside(target.folder)
    try:
        _fill(made, target, asset)
        if former is not None:
            old = _aside(target.folder)
            place.rename(old)
            delete(old)
        made.rename(place)
    finally:
        delete(made)
    return True


def _fill(folder: Path, target: _Target, asset: _Asset) -> None:
    names: list[str] = []
    for ref in asset.refs:
        artifact = target.store.open(ref)
        files = artifact.files() if target.links else {}
        for file in artifact.attributes["files"]:
            name = result_name(ref.stage, check_name(file))
            if name in names:
                raise PluginError(f"two goals of this dataset give the file {name}: ask for one of them")
            if target.links:
                link_or_copy(files[file], folder / name)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(folder / name, artifact.read_file(file))
            names.append(name)
    if target.config.formats:
        names += _write_formats(folder, target, asset)
    row = asset.row
    clip = {"id": row.id, "source": row.source, "sha256": row.sha256, "tags": row.tags}
    made = {"artifacts": asset.keys, "files": names, **_more(target.config)}
    write_json(folder / ABOUT, {**target.said, **clip, **made})
    sync_tree(folder)


def _write_formats(folder: Path, target: _Target, asset: _Asset) -> tuple[str, ...]:
    """Writes the formats asked for beside the goals' files, of which they may be one: their own stays then."""

    def value(stage: str) -> Value:
        return read_value(installed().stage(stage).value_type(), target.store.open(asset.taken[stage]))

    with target.writing:
        try:
            scene = read_scene(value, asset.taken, target.config, asset.row.id)
        except StoreError as error:  # a finished clip may have lost what its files were made of
            raise DamageError(str(error)) from error
        aside = folder / f".{owned_name()}"
        aside.mkdir()
        files = write_formats(target.config.formats, scene, aside, progress=silent)
        fresh = tuple(name for name in files if not (folder / name).exists())
        for name in fresh:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).replace(folder / name)
        delete(aside)
    return fresh


def _more(config: ExportConfig) -> dict[str, Any]:
    """What `asset.json` says of formats that were written besides; nothing if there are none."""
    if not config.formats:
        return {}
    cap = {} if config.max_gaussians is None else {"max_gaussians": config.max_gaussians}
    return {"formats": list(config.formats), **cap}


def _keys_at(place: Path) -> tuple[dict[str, str], dict[str, Any]] | None:
    """The keys of the artifacts that were exported there, by stage, and the formats besides; None if nothing was.

    Raises:
        ConfigError: if something else lies there.
    """
    if not place.exists():
        return None
    try:
        about = read_json(place / ABOUT)
        # Of schema 1 each asset was one artifact.
        keys = dict(about["artifacts"]) if about["schema"] != 1 else {about["stage"]: about["key"]}
        return keys, {name: about[name] for name in ("formats", "max_gaussians") if name in about}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{place} holds something else than an asset, for it has no {ABOUT} that says so: move it away, or give "
            "another folder"
        ) from error


def _aside(folder: Path) -> Path:
    """A new name for a folder that the next export deletes if this one is killed."""
    return folder / f".{owned_name()}"


def _sweep(folder: Path) -> None:
    for name in listed(folder):
        if name.startswith(".") and is_orphan(name[1:]):
            delete(folder / name)
