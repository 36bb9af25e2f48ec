"""`ss4d train`: train a model by a recipe, or go on from a trained one."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ss4d.cli.console import console
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device
from ss4d.pipelines.training.train_options import TRAIN_OPTIONS, DataTrainOptions

KEPT = "checkpoints and finished steps are kept, and the same command goes on from the last of them"


def _option(name: str) -> Any:
    option = TRAIN_OPTIONS[name]
    return typer.Option(f"--{name}", metavar=option.metavar, min=option.least, help=option.help)


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=TRAIN_OPTIONS["recipe"].help)],
    out: Annotated[Path, _option("out")],
    data: Annotated[Path | None, _option("data")] = None,
    assets: Annotated[Path | None, _option("assets")] = None,
    only: Annotated[str | None, _option("only")] = None,
    device: Device = "auto",
    minutes: Annotated[float | None, _option("minutes")] = None,
    init: Annotated[str | None, _option("init")] = None,
    deepen: Annotated[bool, _option("deepen")] = False,
    lora: Annotated[int | None, _option("lora")] = None,
    steps: Annotated[int | None, _option("steps")] = None,
    rate: Annotated[float, _option("rate")] = 1.0,
    fresh: Annotated[bool, _option("fresh")] = False,
    seed: Annotated[int, _option("seed")] = 0,
    debug: Debug = False,
) -> None:
    """Trains a model, and writes it as a folder that **ss4d run --set model=DIR** takes.

    Eight steps: **images** trains the image encoder alone, **occupancy** and **appearance** train the autoencoders of
    voxel grids and of what voxels look like, **statistics** measures the structured latents, **structure** and
    **latents** train the flows of the two stages, and **voxels** and **gaussians** train each flow together with its
    decoder on what the two generate. Each writes log.jsonl, curves.svg, pictures and checkpoints to DIR/training/STEP.
    A step that is done is skipped, so the same command goes on wherever it was stopped, and comes to the same weights
    on a CPU.

    For example:

        ss4d train tiny --out model
        ss4d train tiny --out model --assets animals
        ss4d train tiny --out model --data clips --minutes 30
        ss4d train tiny --out mine --data clips --init bundled:tiny --lora 8
        ss4d train tiny --out mine --init bundled:tiny --steps 1000 --rate 0.3
    """
    with explained(debug, KEPT):
        from ss4d.pipelines.training.train import train_model  # not at the top: it imports torch, which takes seconds

        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = DataTrainOptions(
            recipe=recipe,
            out=out,
            data=data,
            assets=assets,
            only=only,
            device=device,
            minutes=minutes,
            init=init,
            deepen=deepen,
            lora=lora,
            steps=steps,
            rate=rate,
            fresh=fresh,
            seed=seed,
        )
        train_model(options, lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False))
