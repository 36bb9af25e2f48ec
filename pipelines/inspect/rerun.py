"""The options that make an earlier run again, with changes, for `ss4d plan RUN`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import RunRecord, open_run
from ss4d.pipelines.plan import NO_WISH, Wish
from ss4d.pipelines.prepare import DEFAULT_STORE, RunOptions
from ss4d.pipelines.registry import installed
from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.seed import DEFAULT_SEED
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import input_digest


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a user changes in an earlier run; None and empty leave it as it was. No result depends on the device."""

    config: str | None = None
    overrides: Sequence[str] = ()
    seed: int | None = None
    store: str | None = None
    device: str = "auto"
    wish: Wish = NO_WISH


def is_run(folder: Path) -> bool:
    """Whether a path is that of a run or of a packed run, rather than an input."""
    return (folder / RECORD).is_file() or folder.suffix == ".zip"


def check_input(path: Path) -> None:
    """Raises InputError, which says that a path is neither a run nor an input, if it is no input."""
    try:
        input_digest(path)
    except InputError as error:
        raise InputError(f"{path} is no run, as it has no {RECORD}, and no input: {error}") from error


def options_of_run(run: Path, changes: Changes) -> RunOptions:
    """The options that make the run in the folder `run` again, with some changes.

    Raises:
        StoreError: there is no run, or its record cannot be read.
        ConfigError: the record does not say enough.
    """
    if run.is_file():
        raise ConfigError(f"{run} is a packed run, which cannot go on: unpack it, and give the folder runs/NAME in it")
    record = open_run(run, changes.store).record
    folder = run.absolute()
    if folder.parent.name != "runs":
        raise ConfigError(f"{run} must lie in a folder runs/, as `ss4d run` made it; give the path of such a run")
    config = changes.config or record.configuration
    if config is None:
        raise ConfigError(f"{run} was made by a version that did not record its configuration: name it with --config")
    return RunOptions(
        source=Path(record.input.path),
        out=folder.parent.parent,
        config=config,
        overrides=[*_kept_overrides(record, changes.overrides), *changes.overrides],
        seed=record.seed if changes.seed is None else changes.seed,
        device=changes.device,
        name=folder.name,
        store=changes.store or (None if record.store == DEFAULT_STORE else record.store),
        wish=changes.wish,
    )


def command(options: RunOptions, goals: Sequence[str]) -> str:
    """What to type for a run with these options and goals."""
    words = ["ss4d", "run", str(options.source), "--out", str(options.out), "--config", options.config]
    words += [word for override in options.overrides for word in ("--set", override)]
    words += [] if options.seed == DEFAULT_SEED else ["--seed", str(options.seed)]
    words += ["--name", options.name] if options.name else []
    words += ["--store", options.store] if options.store else []
    words += [word for goal in dict.fromkeys(goals) for word in ("--goal", goal)]
    return shlex.join(words)


def _kept_overrides(record: RunRecord, overrides: Sequence[str]) -> list[str]:
    """The recorded overrides without those of a stage for which another implementation is chosen now."""
    now = dict(override.split("=", 1) for override in overrides if "=" in override)
    replaced = {
        stage
        for stage in record.stages
        if (method := now.get(f"{stage}.method")) is not None
        and not installed().same(stage, record.stages[stage].recipe.implementation, method)
    }
    return [override for override in record.overrides if override.partition(".")[0] not in replaced]
