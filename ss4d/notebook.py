"""What people call from Python, as `ss4d.run`, `ss4d.open_run` and `ss4d.open_dataset`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ss4d.pipelines.config import as_overrides, with_frames
from ss4d.pipelines.dataset import layout
from ss4d.pipelines.dataset.contents import DatasetContents
from ss4d.pipelines.dataset.keys import choose_settings
from ss4d.pipelines.engines import chosen_engine
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.plan import Wish
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import LogReporter, Reporter, run_clip
from ss4d.pipelines.seed import DEFAULT_SEED

__all__ = ["open_dataset", "open_run", "run"]


def run(
    source: str | Path,
    out: str | Path = "output",
    *,
    config: str = "tiny",
    overrides: Sequence[str] = (),
    goals: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    fps: float | None = None,
    mask: str | Path | None = None,
    seed: int = DEFAULT_SEED,
    device: str = "auto",
    memory: Literal["default", "low"] | None = None,
    name: str | None = None,
    engine: str = "auto",
    store: str | None = None,
    from_stage: str | None = None,
    only: str | None = None,
    force: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> OpenedRun:
    """Makes the 4D asset of one clip as the command `ss4d run` does, and opens the run.

    The arguments are that command's, and `ss4d run --help` describes them; `overrides` are those of --set, such as
    "slat.sampler.steps=25". `reporter` hears how the run goes on; without one, the log "ss4d" does, at level INFO.

    Raises:
        ConfigError, InputError, ModelError, PluginError, StoreError, EngineError: one sentence each, see
            `ss4d.pipelines.errors`.
        OSError: the output folder cannot be written.
        TypeError: a string was given where a list of strings is wanted.
    """
    for argument, words in (("overrides", overrides), ("goals", goals), ("force", force)):
        # A string is a sequence of strings, too, its letters.
        if isinstance(words, str):
            raise TypeError(f"{argument} is a list of strings, such as [{words!r}]; got the string {words!r}")
    options = RunOptions(
        source=Path(source),
        out=Path(out),
        config=config,
        overrides=with_frames(
            as_overrides(overrides, goals, memory), start, end, fps, None if mask is None else Path(mask)
        ),
        seed=seed,
        device=device,
        name=name,
        engine=chosen_engine(engine),
        store=store,
        wish=Wish(from_stage=from_stage, only=only, force=force),
    )
    return open_run(run_clip(options, reporter or LogReporter()), store)


def open_dataset(folder: str | Path, store: str | None = None) -> DatasetContents:
    """The dataset in a folder that `ss4d dataset init` made, for the configuration of its last run.

    Args:
        folder: of the dataset.
        store: where its results are kept; must be told where its description names an address, since that may be
            anybody's.

    Raises:
        ConfigError: if there is none, or its store is another one.
        NewerError: if a newer version wrote it.
        OSError: if the records of its runs cannot be read.
    """
    dataset = layout.open_dataset(Path(folder), store)
    return DatasetContents(dataset, choose_settings(dataset))
