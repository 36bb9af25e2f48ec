"""`ss4d train`: train a model by a recipe, or go on from a trained one."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from ss4d.cli.console import console
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device

KEPT = "checkpoints and finished steps are kept, and the same command goes on from the last of them"


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="**tiny**: the small bundled model. **smoke**: networks too small to learn, to try a machine.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Becomes a model folder; made if missing.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Clips of `ss4d data`; without, procedural clips are made first and kept in --out.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="STEP",
            help="One step alone: occupancy, appearance, statistics, structure, latents, voxels or gaussians; by "
            "default, all in order.",
        ),
    ] = None,
    device: Device = "auto",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Stop with a checkpoint after so many minutes.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="MODEL", help="Go on from a model: a folder, bundled:NAME or hub:ORG/NAME."),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            "--lora",
            metavar="RANK",
            min=1,
            help="With --init: learn low-rank adapters of the two flows alone, and merge them at the end.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", metavar="N", min=1, help="Optimizer steps of each step, instead of the recipe's."),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", metavar="PART", help="Learn at this part of the recipe's learning rates.")
    ] = 1.0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make new clips for every step, instead of drawing from a set made before.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Where the random numbers start.")] = 0,
    debug: Debug = False,
) -> None:
    """Trains a model, and writes it as a folder that **ss4d run --set model=DIR** takes.

    Seven steps: **occupancy** learns to code voxel grids, **appearance** to code their looks and to decode them to
    Gaussians, **statistics** measures both codes, **structure** learns to make voxels of a video, **latents** to make
    their looks, and in **voxels** and **gaussians** each of these two and its decoder learn together by what comes out.
    Each writes log.jsonl, curves.svg, pictures and checkpoints to DIR/training/STEP. A step that is done is skipped, so
    the same command goes on wherever it was stopped, and comes to the same weights on a CPU.

    For example:

        ss4d train tiny --out model
        ss4d train tiny --out model --data clips --minutes 30
        ss4d train tiny --out mine --data clips --init bundled:tiny --lora 8
        ss4d train tiny --out mine --init bundled:tiny --steps 1000 --rate 0.3
    """
    with explained(debug, KEPT):
        from ss4d.pipelines.training.train import (  # not at the top: it imports torch, which takes seconds
            TrainOptions,
            train_model,
        )

        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = TrainOptions(
            recipe=recipe,
            out=out,
            data=data,
            only=only,
            device=device,
            minutes=minutes,
            init=init,
            lora=lora,
            steps=steps,
            rate=rate,
            fresh=fresh,
            seed=seed,
        )
        train_model(options, lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False))
