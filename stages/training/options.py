"""The options that `python -m ss4d.stages.training` and `ss4d train` both have."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ss4d.stages.ops.device import WORDS
from ss4d.stages.training.recipe import RECIPES


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        help: what it does.
        kind: of its value; bool for a switch.
        metavar: what stands for its value in a help text.
        least: the least whole number that it takes; None for any.
        default: its value where it is not given.
        choices: the words that it takes; empty for any.
    """

    help: str
    kind: type = str
    metavar: str | None = None
    least: int | None = None
    default: str | float | bool | None = None
    choices: tuple[str, ...] = ()


RECIPE = Option(
    help="tiny: the small bundled model. smoke: networks too small to learn, to try a machine.", choices=tuple(RECIPES)
)
OUT = Option(help="Becomes a model folder; made if missing.", kind=Path, metavar="DIR")
OPTIONS: Mapping[str, Option] = {
    "assets": Option(
        help="Animated .glb or .gltf files: clips of all their animations are shown beside the procedural ones.",
        kind=Path,
        metavar="DIR",
    ),
    "only": Option(
        help="One step alone: images, occupancy, appearance, statistics, structure, latents, voxels or gaussians; by "
        "default, all in order.",
        metavar="STEP",
    ),
    "device": Option(help="Device to compute on; auto takes CUDA if there is one.", default="auto", choices=WORDS),
    "minutes": Option(help="Stop with a checkpoint after so many minutes.", kind=float, metavar="N", least=0),
    "init": Option(help="Go on from a model folder.", metavar="MODEL"),
    "deepen": Option(
        help="With --init and --only images: first add a block to each level of the image encoder.",
        kind=bool,
        default=False,
    ),
    "lora": Option(
        help="With --init: learn low-rank adapters of the two flows alone, and merge them at the end.",
        kind=int,
        metavar="RANK",
        least=1,
    ),
    "steps": Option(help="Optimizer steps of each step, instead of the recipe's.", kind=int, metavar="N", least=1),
    "rate": Option(help="Learn at this part of the recipe's learning rates.", kind=float, metavar="PART", default=1.0),
    "fresh": Option(
        help="Make new clips for every step, instead of drawing from a set made before.", kind=bool, default=False
    ),
    "seed": Option(help="Where the random numbers start.", kind=int, metavar="N", least=0, default=0),
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the training command was told; `RECIPE`, `OUT` and `OPTIONS` say what each is."""

    recipe: str
    out: Path
    assets: Path | None = None
    only: str | None = None
    device: str = "auto"
    minutes: float | None = None
    init: str | None = None
    deepen: bool = False
    lora: int | None = None
    steps: int | None = None
    rate: float = 1.0
    fresh: bool = False
    seed: int = 0
