"""What `ss4d train` can be told: the options of training itself, and where records and models come from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ss4d.stages.training.options import OPTIONS, OUT, RECIPE, Option, TrainOptions

TRAIN_OPTIONS: Mapping[str, Option] = {
    **OPTIONS,
    "recipe": RECIPE,
    "out": OUT,
    "data": Option(
        help="Clips of `ss4d data`; without, procedural clips are made first and kept in --out.",
        kind=Path,
        metavar="DIR",
    ),
    "init": replace(OPTIONS["init"], help="Go on from a model: a folder, bundled:NAME or hub:ORG/NAME."),
}


@dataclass(frozen=True, kw_only=True)
class DataTrainOptions(TrainOptions):
    """What the command was told."""

    data: Path | None = None
