"""`ss4d plan`: what a run would compute, and why, before anything is computed."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ss4d.cli.console import output
from ss4d.cli.failures import explained
from ss4d.cli.options import (
    Debug,
    End,
    Force,
    Fps,
    FromStage,
    Goals,
    Mask,
    Memory,
    Name,
    Only,
    Out,
    Overrides,
    Start,
    Store,
)
from ss4d.cli.tables import print_table
from ss4d.pipelines.seed import DEFAULT_SEED

if TYPE_CHECKING:
    from ss4d.pipelines.prepare import Preparation


def plan(
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN|INPUT", help="The folder of a run, or the input of one to come.", readable=False),
    ],
    overrides: Overrides = None,
    goals: Goals = None,
    start: Start = None,
    end: End = None,
    fps: Fps = None,
    mask: Mask = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the random numbers; by default the run's, or 42.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="tiny|ss4d|FILE.yaml", help="The configuration; by default the run's, or **tiny**."
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            "--device",
            help="Device that it is for, here or elsewhere; given, what the run would take on it is estimated, too.",
        ),
    ] = None,
    memory: Memory = None,
    from_stage: FromStage = None,
    only: Only = None,
    force: Force = None,
    store: Store = None,
    out: Out = Path("output"),
    name: Name = None,
    debug: Debug = False,
) -> None:
    """Shows what a run would compute and why; computes nothing.

    With a RUN: what **ss4d run** would do with the same input and options, and the changes given here. With an INPUT:
    what a first run of it would do; **--out** and **--name** count only then.

    For example:

        ss4d plan output/runs/bird --set slat.sampler.steps=25
        ss4d plan output/runs/bird --from slat
        ss4d plan clip.mp4
        ss4d plan clip.mp4 --config ss4d --device cuda
    """
    with explained(debug, "nothing was changed"):
        from ss4d.pipelines.config import as_overrides, with_frames
        from ss4d.pipelines.inspect.rerun import Changes, check_input, is_run, options_of_run
        from ss4d.pipelines.plan import RUN, Wish
        from ss4d.pipelines.prepare import RunOptions, prepare

        signal.signal(signal.SIGINT, signal.default_int_handler)
        said = with_frames(as_overrides(overrides, goals, memory), start, end, fps, mask)
        wish = Wish(from_stage=from_stage, only=only, force=force or ())
        if is_run(target):
            changes = Changes(config=config, overrides=said, seed=seed, store=store, device=device or "auto", wish=wish)
            options = options_of_run(target, changes)
        else:
            check_input(target)
            options = RunOptions(
                source=target,
                out=out,
                config=config or "tiny",
                overrides=said,
                seed=DEFAULT_SEED if seed is None else seed,
                device=device or "auto",
                name=name,
                store=store,
                wish=wish,
            )
        run = prepare(options, to_run=False)
        run.check_input()
        steps = run.steps
        rows = [(step.stage, step.action, step.ref.key[:8], step.reason) for step in steps]
        print_table(("stage", "action", "artifact", "why"), rows)
        output(f"{sum(step.action == RUN for step in steps)} of {len(steps)} stages would be computed.")
        if device is not None:
            _estimate(run, run.count_frames())


def _estimate(run: "Preparation", frames: int) -> None:
    """What the run would take, as far as networks take it."""
    # Only here: it needs torch, which a plan by itself does not.
    from ss4d.pipelines.durations import said_duration
    from ss4d.pipelines.forecast import forecast, known_voxels, shortage

    device, voxels, stages = run.model.device, known_voxels(run, frames), forecast(run, frames)
    if not stages:
        return
    seconds = [stage.seconds(device) for stage in stages] if run.model.has_device else None
    assumed = "as many voxels as most objects have" if voxels is None else f"the {voxels:,.0f} voxels a frame it has"
    rate = "" if seconds is None else ", and networks that reach half of the rate of large matrix products here"
    output(f"Estimated for {frames} frames on {device}, with {assumed}{rate}:")
    times = ["not known"] * len(stages) if seconds is None else map(said_duration, seconds)
    print_table(
        ("stage", "memory", "TFLOP", "time"),
        [
            (stage.stage, f"{stage.peak / 2**30:.1f} GiB", _tera(sum(stage.flop.values())), time)
            for stage, time in zip(stages, times, strict=True)
        ],
    )
    most = f"{max(stage.peak for stage in stages) / 2**30:.1f} GiB beside the program itself"
    if seconds is None:
        work = sum(sum(stage.flop.values()) for stage in stages)
        output(
            f"In all {_tera(work)} TFLOP, and {most}. How long that takes is not known without the card, and there "
            "is no CUDA device here; docs/gpu.md has what arithmetic says of some."
        )
    else:
        output(f"In all {said_duration(sum(seconds))}, and {most}.")
    if told := shortage(run, frames):
        output(told)


def _tera(flop: float) -> str:
    """In units of 10^12, to two digits at least."""
    return f"{flop / 1e12:,.0f}" if flop > 1e13 else f"{flop / 1e12:.2g}"
