"""One pass of each network with random weights: seconds, share of what the device reaches, peak of memory."""

import logging
from collections.abc import Iterator
from functools import partial

import torch

from ss4d.pipelines.bench.clock import ceilings, costs, peak_memory, seconds_of
from ss4d.pipelines.bench.subjects import Inputs, Subject, subjects
from ss4d.pipelines.doctor.findings import Check, guarded

LOG = logging.getLogger("ss4d")
GROUP = "networks"


@torch.no_grad()
def network_checks(given: Inputs) -> Iterator[Check]:
    """A check for each network, and first what products of large matrices reach on this device."""
    reached = ceilings(given.device, given.dtype)
    says = ", ".join(f"{most / 1e12:.2f} TFLOP/s in {name}" for name, most in reached.items())
    yield Check(group=GROUP, name="large matrices", state="ok", says=says, numbers=reached)
    for subject in subjects(given):
        name = f"{subject.stage} {subject.work}"
        if given.size == "published":  # on a CPU, minutes
            LOG.info("measures %s", name)
        yield from guarded(GROUP, name, partial(_measured, name, subject, given, reached))


def _measured(name: str, subject: Subject, given: Inputs, reached: dict[str, float]) -> Iterator[Check]:
    flop = 0.0

    def counted() -> None:
        nonlocal flop
        flop, _ = costs(subject.fast, None, given.device)

    memory = peak_memory(counted, given.device)  # this first call builds the tables that a run keeps, too
    seconds = seconds_of(subject.fast, given.device)
    share = flop / seconds / reached[subject.products] if flop and subject.products else None
    whose = "" if given.device.type == "cuda" else " of the process"  # with what it has not given back
    arithmetic = f", {flop / 1e9:,.1f} GFLOP" if flop else ""
    arithmetic += f", {share:.0%} of what large matrices reach in {subject.products}" if share is not None else ""
    yield Check(
        group=GROUP,
        name=name,
        state="ok",
        says=f"{seconds:.3f} s{arithmetic}, peak{whose} {memory / 2**20:,.0f} MiB",
        numbers={"seconds": seconds, "flop": flop, "share": share, "peak_memory": memory},
    )
