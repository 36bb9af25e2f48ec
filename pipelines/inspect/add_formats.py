"""More formats of a finished run's asset, made of what is stored: nothing is computed again.

In the run's folder they are noted in its record beside the Gaussians that they show, so that the next run of the name
keeps them while they are right, and removes them, and says so, when the asset is another one.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.asset import EXPORT, check_meshes, gaussian_key, scene_of_run
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.pipelines.one_writer import only_settings
from ss4d.pipelines.run_record import RECORD, EarlierRun, Exported, read_record, write_record
from ss4d.stages.errors import InputError
from ss4d.stages.export.config import ExportConfig, FormatName
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.packages import check_packages
from ss4d.stages.types import Progress
from ss4d.storage.errors import StoreError
from ss4d.storage.files import delete, leads_out, owned_name, read_json


@dataclass(frozen=True)
class Added:
    """What became of the formats that were asked for.

    Attributes:
        files: of each format that is there now, the names of its files, relative to the folder.
        refused: of each other one, why it could not be made.
    """

    files: dict[FormatName, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[FormatName, str] = field(default_factory=dict)


def add_formats(
    run: OpenedRun, formats: Sequence[FormatName], folder: Path, *, max_gaussians: int | None, progress: Progress
) -> Added:
    """Writes a run's asset in more formats, those that can be made.

    A format that cannot be made is one that cannot hold the asset, whose package is not installed, that is made of
    meshes which the run has not, or whose files would replace other ones of the run itself.

    Args:
        run: its Gaussians must be stored.
        formats: at least one.
        folder: the run's own, or another one, which is made if it is missing.
        max_gaussians: of a frame; None: as the run was exported.
        progress: told after each frame of each format.

    Raises:
        StoreError: the asset is not stored, or damaged.
        OSError: the folder cannot be written.
    """
    refused = {name: reason for name in formats if (reason := _reason_against(run, name))}
    config = export_config(run.record.config.get(EXPORT), [n for n in formats if n not in refused], max_gaussians)
    if not config.formats:
        return Added(refused=refused)
    if folder.absolute() != run.path.absolute():
        added = _write(run, config, folder, (), progress)
        return Added(added.files, refused | added.refused)
    with only_settings(folder, f"export of {', '.join(formats)}"):
        before = read_record(folder)
        if before is None:
            raise StoreError(f"{folder / RECORD} is gone, or damaged: run the clip again under the same name")
        own = set(before.results) - set(before.exported.files if before.exported else ())
        added = _write(run, config, folder, own, progress)
        files = {name for names in added.files.values() for name in names}
        exported = _noted(before, gaussian_key(run), files - own, dict.fromkeys(added.files, max_gaussians))
        content = read_json(folder / RECORD)
        results = sorted({*before.results, *files})
        write_record(folder, {**content, "results": results, "exported": exported.model_dump()})
        return Added(added.files, refused | added.refused)


def _reason_against(run: OpenedRun, name: FormatName) -> str | None:
    """Why a format cannot be made of a run; None if nothing is known that speaks against it."""
    try:
        check_packages([name])
        check_meshes(run, [name])
    except (InputError, StoreError) as error:
        return str(error)
    return None


def _noted(before: EarlierRun, key: str, files: Collection[str], formats: dict[FormatName, int | None]) -> Exported:
    """What a record says of added files: these, and earlier ones if they show the same Gaussians."""
    same = before.exported if before.exported and before.exported.key == key else Exported(key=key, files=[])
    return Exported(key=key, files=sorted({*same.files, *files}), formats={**same.formats, **formats})


def export_config(section: object, formats: Sequence[FormatName], max_gaussians: int | None) -> ExportConfig:
    """The configuration of an export with other formats; `section` is that of a run, if it has one that is known."""
    config = _known(section)
    cap = config.max_gaussians if max_gaussians is None else max_gaussians
    return config.model_copy(update={"formats": tuple(formats), "max_gaussians": cap})


def _known(section: object) -> ExportConfig:
    try:
        return ExportConfig.model_validate_json(json.dumps(section))
    except ValidationError:  # a package's own exporter, or a newer version's
        return ExportConfig()


def _write(run: OpenedRun, config: ExportConfig, folder: Path, own: Collection[str], progress: Progress) -> Added:
    """Writes the formats, each whole or not at all; `own` are the files there that the run itself made."""
    scene, added = scene_of_run(run, config), Added()
    cap_of_run = _known(run.record.config.get(EXPORT)).max_gaussians
    as_run = run.record.state == "complete" and config.max_gaussians == cap_of_run
    total = len(config.formats) * scene.num_frames
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f".{owned_name()}"  # beside the place of the files, so that they only have to be renamed
    made.mkdir()
    try:
        for number, name in enumerate(config.formats):

            def told(done: int, _: int, before: int = number * scene.num_frames) -> None:
                progress(before + done, total)

            try:
                files = write_formats([name], scene, made, progress=told)
                if not (as_run and set(files) <= set(own)):  # else it is there already
                    _place(files, made, folder, own)
                added.files[name] = files
            except (InputError, ConfigError) as error:
                added.refused[name] = str(error)
    finally:
        delete(made)
    return added


def _place(files: Sequence[str], made: Path, folder: Path, own: Collection[str]) -> None:
    """Moves files from the folder `made` to theirs; raises ConfigError if they may not lie there."""
    for name in files:
        if name in own:
            raise ConfigError(
                f"{folder / name} is a file of the run itself, made with other settings: give another folder with --out"
            )
        if leads_out(folder, name):
            raise ConfigError(f"{folder / name} would lie somewhere else, through a link on the way")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).replace(folder / name)
