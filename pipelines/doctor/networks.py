"""One pass of each network with random weights: seconds, share of what the device reaches, peak of memory."""

import logging
from collections.abc import Iterator
from functools import partial

import torch

from ss4d.pipelines.bench.clock import ceiling, costs, peak_memory, seconds_of
from ss4d.pipelines.bench.subjects import Inputs, Subject, subjects
from ss4d.pipelines.doctor.findings import Check, guarded

LOG = logging.getLogger("ss4d")
GROUP = "networks"


@torch.no_grad()
def network_checks(given: Inputs) -> Iterator[Check]:
    """A check for each network, and first what products of large matrices reach on this device."""
    ceilings = {dtype: ceiling(given.device, dtype) for dtype in dict.fromkeys((torch.float32, given.dtype))}
    reached = ", ".join(f"{most / 1e12:.2f} TFLOP/s in {_name(dtype)}" for dtype, most in ceilings.items())
    numbers = {_name(dtype): most for dtype, most in ceilings.items()}
    yield Check(group=GROUP, name="large matrices", state="ok", says=reached, numbers=numbers)
    for subject in subjects(given):
        name = f"{subject.stage} {subject.work}"
        if given.size == "published":  # on a CPU, minutes
            LOG.info("measures %s", name)
        yield from guarded(GROUP, name, partial(_measured, name, subject, given, ceilings))


def _measured(name: str, subject: Subject, given: Inputs, ceilings: dict[torch.dtype, float]) -> Iterator[Check]:
    flop = 0.0

    def counted() -> None:
        nonlocal flop
        flop, _ = costs(subject.fast, None, given.device)

    memory = peak_memory(counted, given.device)  # this first call builds the tables that a run keeps, too
    seconds = seconds_of(subject.fast, given.device)
    # What has no torso to turn to another precision computes in float32.
    share = flop / seconds / ceilings[given.dtype if subject.network is not None else torch.float32]
    whose = "" if given.device.type == "cuda" else " of the process"  # with what it has not given back
    arithmetic = f", {flop / 1e9:,.1f} GFLOP, {share:.0%} of what large matrices reach" if flop else ""
    yield Check(
        group=GROUP,
        name=name,
        state="ok",
        says=f"{seconds:.3f} s{arithmetic}, peak{whose} {memory / 2**20:,.0f} MiB",
        numbers={"seconds": seconds, "flop": flop, "share": share if flop else None, "peak_memory": memory},
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
