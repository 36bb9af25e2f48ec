"""`ss4d diff`: what differs between two runs, and how far apart their results are."""

import json
import re
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ss4d.cli.console import output
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, RunStore
from ss4d.cli.tables import print_table

if TYPE_CHECKING:
    from ss4d.pipelines.inspect.diff import Change, RunDiff

PLAIN = {"voxels_a", "voxels_b", "gaussians_a", "gaussians_b", "files_equal", "files_a", "files_b"}  # counts


def diff(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of a run, or a packed one.", readable=False)],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one.", readable=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")] = False,
    store: RunStore = None,
    debug: Debug = False,
) -> None:
    """Shows what differs between two runs: input, seed, parameters, weights, versions, and the results of each stage.

    **mask_iou** and **voxel_iou**: overlap, 1 is equal; **voxels_shared**: those that both have, of those that either
    has; **token_distance** and **latent_distance** (on voxels that both have): difference over size, 0 is equal;
    **psnr**: of pictures of the Gaussians from four sides, dB, 100 is equal; **files_equal**: with the same bytes;
    **voxels_a**, **gaussians_b** and the like: how many there are. Means over frames; **_least** is the worst frame. Of
    a stage that a package adds, **NAME_distance** is that of each array NAME. A result that is gone from the store is
    named, and the others are compared.

    For example:

        ss4d diff output/runs/bird output/runs/bird25
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.inspect.opened import open_run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        opened = open_run(a, store), open_run(b, store)
        from ss4d.pipelines.inspect.diff import compare_runs  # torch, for which what is no run need not wait

        found = compare_runs(*opened)
        if as_json:
            typer.echo(json.dumps(asdict(found), indent=2))
        else:
            _print(found)


def _print(found: "RunDiff") -> None:
    groups: list[tuple[str, list[Change]]] = [
        (name, list(getattr(found, name))) for name in ("input", "seed", "parameters", "weights", "versions")
    ]
    rows = [
        (name if index == 0 else "", change.what if change.what != name else "", _text(change.a), _text(change.b))
        for name, group in groups
        for index, change in enumerate(group)
    ]
    if rows:
        print_table(("differs", "", "A", "B"), rows)
    if same := [name for name, group in groups if not group]:
        output(f"The same: {', '.join(same)}.")
    output("")
    print_table(
        ("stage", "results", "how far apart"),
        [
            (stage.stage, f"{stage.verdict}: {stage.why}", ", ".join(_measure(*m) for m in stage.measures.items()))
            for stage in found.stages
        ],
    )


def _measure(name: str, value: float) -> str:
    return f"{name} {value:,.0f}" if name in PLAIN else f"{name} {value:.4g}"


def _text(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:8]  # a hash of weights, cut as keys are elsewhere
    return "-" if value is None else str(value)
