"""`ss4d doctor`: whether this machine computes what it should."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ss4d.cli.console import output, say
from ss4d.cli.exits import FAILED
from ss4d.cli.failures import explained
from ss4d.cli.options import Debug, Device

if TYPE_CHECKING:
    from ss4d.pipelines.doctor.findings import Check


def doctor(
    device: Device = "auto",
    size: Annotated[
        Literal["published", "reduced"] | None,
        typer.Option(
            "--size",
            help="Of the networks; by default published on CUDA and reduced on a CPU, where published takes minutes "
            "to an hour and 7 GiB, and is reduced if these are not free.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Writes all findings as JSON, too.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Examines whether this machine computes what it should, in minutes.

    Prints what is installed; every kernel's errors, and those that a run would take; numbers of the authors' code,
    computed again here; a pass of each network with random weights, with its seconds, its share of what products of
    large matrices reach, and its peak of memory; and a whole run of two frames from a model folder that it makes.

    A line says **ok**, **failed**, **broken** (it is there and does not work, so something else is taken) or
    **skipped**. Exit code 1 if anything failed. It is what to run first on a new card, and what to send with a report
    of a defect: **--json FILE** has every number.

    For example:

        ss4d doctor
        ss4d doctor --device cuda --json card.json
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.doctor.doctor import DoctorOptions, examine

        signal.signal(signal.SIGINT, signal.default_int_handler)
        printed: set[str] = set()

        def tell(check: "Check") -> None:
            if check.group not in printed:
                output(f"\n{check.group}")
                printed.add(check.group)
            output(check.line())

        findings = examine(DoctorOptions(device=device, size=size, out=out), tell)
        states = [check.state for check in findings.checks]
        counts = (f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        output(f"\n{', '.join(counts)}")
        if out is not None:
            say(f"All numbers: {out}")
        if findings.failed:
            raise typer.Exit(FAILED)
