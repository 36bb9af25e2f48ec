"""More formats of a finished run's asset, made of what is stored: nothing is computed again.

In the run's folder they are noted in its record beside the Gaussians that they show, so that the next run of the name
keeps them while they are right, and removes them when the asset is another one.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.asset import EXPORT, gaussian_key, scene_of_run
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.pipelines.one_writer import only_settings
from ss4d.pipelines.run_record import RECORD, read_record, write_record
from ss4d.stages.export.config import FORMAT_NAMES, ExportConfig, FormatName
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.packages import check_packages
from ss4d.stages.types import Progress
from ss4d.storage.errors import StoreError
from ss4d.storage.files import delete, leads_out, owned_name, read_json


def chosen_formats(words: Sequence[str]) -> tuple[FormatName, ...]:
    """The formats that a user names, each word one or several with commas between.

    Raises:
        ConfigError: there is no such format, or none is named.
    """
    named = list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    if unknown := [name for name in named if name not in FORMAT_NAMES]:
        raise ConfigError(f"--formats: there is no format {unknown[0]!r}; choose from {', '.join(FORMAT_NAMES)}")
    if not named:
        raise ConfigError(f"--formats names none; choose from {', '.join(FORMAT_NAMES)}")
    return tuple(name for name in FORMAT_NAMES if name in named)


def add_formats(
    run: OpenedRun, formats: Sequence[FormatName], folder: Path, *, max_gaussians: int | None, progress: Progress
) -> list[str]:
    """Writes a run's asset in more formats and gives the files' names, relative to `folder`.

    Args:
        run: its Gaussians must be stored.
        formats: at least one.
        folder: the run's own, or another one, which is made if it is missing.
        max_gaussians: of a frame; None: as the run was exported.
        progress: told after each frame of each format.

    Raises:
        ConfigError: a file would replace one of the run's own, or a run of the name is in progress.
        InputError: a format cannot hold the asset, or its package is not installed.
        StoreError: the asset is not stored, or damaged.
        OSError: the folder cannot be written.
    """
    check_packages(formats)
    config = export_config(run.record.config.get(EXPORT), formats, max_gaussians)
    if folder.absolute() != run.path.absolute():
        return _write(run, config, folder, (), progress)
    with only_settings(folder, f"export of {', '.join(formats)}"):
        before = read_record(folder)
        if before is None:
            raise StoreError(f"{folder / RECORD} is gone, or damaged: run the clip again under the same name")
        key = gaussian_key(run)
        mine = before.exported.files if before.exported and before.exported.key == key else ()
        files = _write(run, config, folder, set(before.results) - set(mine), progress)
        content = read_json(folder / RECORD)
        exported = {"key": key, "files": sorted({*mine, *files})}
        write_record(folder, {**content, "results": sorted({*before.results, *files}), "exported": exported})
        return files


def export_config(section: object, formats: Sequence[FormatName], max_gaussians: int | None) -> ExportConfig:
    """The configuration of an export with other formats; `section` is that of a run, if it has one that is known."""
    try:
        config = ExportConfig.model_validate_json(json.dumps(section))
    except ValidationError:  # a package's own exporter, or a newer version's
        config = ExportConfig()
    cap = config.max_gaussians if max_gaussians is None else max_gaussians
    return config.model_copy(update={"formats": tuple(formats), "max_gaussians": cap})


def _write(run: OpenedRun, config: ExportConfig, folder: Path, taken: Collection[str], progress: Progress) -> list[str]:
    scene = scene_of_run(run, config)
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f".{owned_name()}"  # beside the place of the files, so that they only have to be renamed
    made.mkdir()
    try:
        files = write_formats(config.formats, scene, made, progress=progress)
        for name in files:
            if name in taken:
                raise ConfigError(
                    f"{folder / name} is a file of the run itself: leave that format out, or give another folder with "
                    "--out"
                )
            if leads_out(folder, name):
                raise ConfigError(f"{folder / name} would lie somewhere else, through a link on the way")
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).replace(folder / name)
    finally:
        delete(made)
    return list(files)
