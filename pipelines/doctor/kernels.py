"""Every kernel that a device can have against torch's on the CPU in float64, and those that a run would take."""

from collections.abc import Iterator
from typing import Any

from ss4d.pipelines.doctor.findings import Check, State
from ss4d.stages.ops.kernel_choice import KERNELS, PARTS, ChosenKernels, Trial, Use, kernels_for, try_kernel
from ss4d.stages.ops.probes import picture_seconds

GROUP = "kernels"
PICTURES = {"published": (200_000, 512), "reduced": (5_000, 128)}  # Gaussians, pixels of a side


def kernel_checks(chosen: ChosenKernels, use: Use, size: str) -> Iterator[Check]:
    """A check of each kernel; one that is there and does not work is broken, and if it would be taken, failed."""
    for part in PARTS:
        for name in kernels_for(part, use.device):
            trial = try_kernel(part, name, use)
            taken = chosen.choices[part].kernel == name
            numbers: dict[str, Any] = {"errors": dict(trial.errors)}
            says = _said(trial)
            if part == "rasterizer" and not trial.problem:
                count, side = PICTURES[size]
                numbers["seconds"] = picture_seconds(trial.kernel, count, side)
                says += f"; {1000 * numbers['seconds']:.1f} ms for {count:,} Gaussians on {side} x {side} pixels"
            says += "; taken" if taken else ""
            yield Check(
                group=GROUP,
                name=f"{part} {name}",
                state=_state(trial, taken or KERNELS[part][name].reference),
                says=says,
                numbers=numbers,
            )
    yield Check(group=GROUP, name="choice", state="ok", says=chosen.said(), numbers=chosen.recorded())


def _state(trial: Trial, needed: bool) -> State:
    if not trial.problem:
        return "ok"
    if needed:  # taken, or what those that are taken leave some of their work to
        return "failed"
    return "skipped" if trial.absent else "broken"


def _said(trial: Trial) -> str:
    if trial.problem:
        return trial.problem
    return "off by " + ", ".join(f"{error:.1e} ({what})" for what, error in trial.errors.items())
