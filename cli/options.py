"""Options that more than one command takes."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def stage_names(incomplete: str) -> list[str]:
    """The names of stages that begin with what is typed, for the completion of a shell."""
    from ss4d.pipelines.registry import installed

    return [name for name in installed().stages() if name.startswith(incomplete)]


Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="For the store and the results; made if missing.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Changes one configuration value, e.g. slat.sampler.steps=12. Repeatable. **ss4d config** lists them.",
    ),
]
Goals = Annotated[
    list[str] | None,
    typer.Option(
        "--goal",
        metavar="STAGE",
        autocompletion=stage_names,
        help="A stage whose result is wanted; by default **export**. Repeatable. What it needs runs, and no more.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option("--start", metavar="FRAME|2.5s", help="The first frame that is used, by number from 0 or by time."),
]
End = Annotated[
    str | None,
    typer.Option("--end", metavar="FRAME|4s", help="The frame after the last that is used, by number or by time."),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="RATE",
        help="Frames per second of the clip: of a video that has more, so many are used; images have so many.",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        metavar="DIR|VIDEO",
        help="Masks of the object, one a frame by name or in order, white on it.",
        readable=False,  # the run itself says in one sentence what is wrong with it
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run's folder; by default the input's name.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="LOCATION",
        help="Where results of stages are kept: a folder, or a URL such as s3://bucket/prefix; by default DIR/store.",
    ),
]
RunStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="LOCATION",
        help="Where the run's results are kept; by default the folder that its record names. An address in a record is "
        "connected to only if it is given here.",
    ),
]
_FORMATS = typer.Option(
    "--formats",
    metavar="NAME,...",
    help="Which: ply, compressed_ply, spz, glb, gaussian_glb, usd, 4d.zip or html; several with commas, or repeated.",
)
Formats = Annotated[list[str], _FORMATS]
MoreFormats = Annotated[list[str] | None, _FORMATS]
MaxGaussians = Annotated[
    int | None,
    typer.Option(
        "--max-gaussians", min=1, metavar="NUMBER", help="Most Gaussians of a frame: those that show the most."
    ),
]
FromStage = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STAGE",
        autocompletion=stage_names,
        help="Compute this stage and all made from it again, stored or not.",
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only", metavar="STAGE", autocompletion=stage_names, help="Only this stage; its inputs must be stored."
    ),
]
Force = Annotated[
    list[str] | None,
    typer.Option(
        "--force",
        metavar="STAGE",
        autocompletion=stage_names,
        help="Compute this stage again, stored or not. Repeatable.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="Device to compute on; **auto** takes CUDA if there is one."),
]
Memory = Annotated[
    Literal["default", "low"] | None,
    typer.Option(
        "--memory",
        help="**low** takes up to 1.25 GiB less and some time more; results are the same. Short for --set memory=low.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")]
