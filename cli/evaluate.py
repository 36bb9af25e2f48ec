"""`ss4d eval`: measure a model on clips it was not trained on."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from ss4d.cli.console import bar, output, say
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model folder, bundled:NAME, or hub:ORG/NAME.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Held-out clips that `ss4d data` made; by default clips are made on the fly."
        ),
    ] = None,
    clips: Annotated[int, typer.Option("--clips", help="How many clips, at most.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of the first held-out clip made on the fly.")] = 0,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the report goes.")] = Path("evaluation"),
    fit: Annotated[
        bool, typer.Option("--fit", help="Measures the answers fitted to the input view, too; takes minutes more.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option("--frames", help="At most this many frames of each clip, its first; by default all.")
    ] = None,
    views: Annotated[
        int | None, typer.Option("--views", help="At most this many views of each clip, evenly; by default all.")
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Measures a model on held-out clips.

    It is compared with its autoencoders alone (an upper bound; they need the encoders under MODEL/training) and with
    two answers that need no learning: silhouette inflation, and the mean training shape. DIR gets `report.md`,
    `report.json` and contact sheets of the first clips. Clips that have their scores in DIR are not measured again,
    so the same command goes on after an interruption.

    For example:

        ss4d eval bundled:tiny --clips 64
        ss4d eval out/model --data heldout --out report
        ss4d eval bundled:tiny --fit --clips 8 --frames 8 --views 4
    """
    with explained(debug, "measured clips are kept, and the same command goes on where it stopped"):
        from ss4d.pipelines.training.evaluate import EvaluationOptions
        from ss4d.pipelines.training.evaluate import evaluate as measure

        signal.signal(signal.SIGINT, signal.default_int_handler)
        options = EvaluationOptions(
            model=model,
            data=data,
            clips=clips,
            seed=seed,
            out=out,
            device=device,
            fit=fit,
            frames=frames,
            views=views,
        )
        with bar("clips") as progress:
            report = measure(options, progress)
        output(report.read_text(encoding="utf-8"))
        say(f"Report and contact sheets: {report.parent}")
