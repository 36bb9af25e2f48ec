"""Options that several commands of `ss4d dataset` take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ss4d.pipelines.dataset.keys import Settings

DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", help="A folder that **ss4d dataset init** made.", readable=False)
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="tiny|ss4d|FILE.yaml",
        help="The configuration, as for **ss4d run**. Without it, that of the dataset's last run, changed by --set and "
        "--seed; tiny if there was none.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="The seed of each clip's random numbers; 42 if there was no run.", show_default=False),
]

Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Only clips for which this holds: columns of the manifest, state and measures.",
    ),
]
DatasetStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="LOCATION",
        help="Where the dataset's results are kept, as **ss4d dataset init** was told. An address in dataset.json is "
        "connected to only if it is given here.",
    ),
]
Lanes = Annotated[
    int,
    typer.Option(
        "--lanes", help="Clips that a worker runs at the same time: one computes, others are read and written."
    ),
]
ClipTimeout = Annotated[
    float | None,
    typer.Option("--clip-timeout", metavar="SECONDS", help="Kill the worker of a clip that takes longer."),
]
Memory = Annotated[
    str | None, typer.Option("--memory", metavar="SIZE", help="Kill a worker that takes more, such as 6G.")
]
Retries = Annotated[
    int, typer.Option("--retries", help="How often to try again after transient errors, each time later.")
]


def settings_for(
    folder: Path, config: str | None, overrides: list[str] | None, goals: list[str] | None, seed: int | None
) -> "Settings":
    """The settings that a command means; see `ss4d.pipelines.dataset.keys.choose_settings`."""
    # Not at the top: torch takes seconds to import, and --help should not.
    from ss4d.pipelines.config import as_overrides
    from ss4d.pipelines.dataset.keys import choose_settings
    from ss4d.pipelines.dataset.layout import open_dataset

    return choose_settings(open_dataset(folder), config, as_overrides(overrides, goals), seed)
