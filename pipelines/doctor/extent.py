"""How far an examination goes: the size of the networks and of the clip, and what that asks of a CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from ss4d.pipelines.doctor.findings import Check
from ss4d.pipelines.durations import product_rate, said_duration
from ss4d.pipelines.forecast import EFFICIENCY
from ss4d.stages.nn.arithmetic import Load, flop
from ss4d.stages.nn.checkpoint import network_args
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG
from ss4d.stages.precision import Precision
from ss4d.stages.published import PUBLISHED, VOXELS
from ss4d.stages.roles import LATENT_FLOW, STRUCTURE_FLOW

SizeName = Literal["published", "reduced"]
NEEDED_MEMORY = 7 * 2**30  # bytes, of the published size on a CPU
CALLS = 2  # of each network: a first one, whose arithmetic is counted, and one that is timed
RUN_STEPS = 2  # of each sampler, in the run of two frames; all are guided
RUN_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How far an examination goes.

    Attributes:
        half: the number format that networks are examined in besides float32.
        precision: of the run of two frames.
        frames: of the clip that each network is given.
        voxels: of each frame.
    """

    half: torch.dtype
    precision: Precision
    frames: int
    voxels: int


# By device and size, so that each takes minutes.
EXTENTS: Mapping[tuple[str, SizeName], Extent] = {
    ("cuda", "published"): Extent(half=torch.float16, precision="published", frames=8, voxels=20_000),
    ("cuda", "reduced"): Extent(half=torch.float16, precision="float16", frames=8, voxels=300),
    ("cpu", "published"): Extent(half=torch.bfloat16, precision="bfloat16", frames=2, voxels=3000),
    ("cpu", "reduced"): Extent(half=torch.bfloat16, precision="float32", frames=2, voxels=100),
}
USUAL: Mapping[str, SizeName] = {"cuda": "published", "cpu": "reduced"}


def fitting_size(device: str, asked: SizeName | None) -> tuple[SizeName, Check | None]:
    """The size to examine, and what is to be said of it: whether a CPU's memory holds it, and how long it takes there.

    Args:
        device: that is examined.
        asked: the size that is asked for; None for the usual one.
    """
    size = asked or USUAL[device]
    if device != "cpu" or size != "published":
        return size, None
    free = psutil.virtual_memory().available
    if free < NEEDED_MEMORY:
        needed = f"{NEEDED_MEMORY / 2**30:.0f} GiB of memory"
        says = f"published takes {needed}, and {free / 2**30:.1f} are free: reduced instead"
        return "reduced", Check(group="machine", name="size", state="skipped", says=says)
    duration = said_duration(_seconds(EXTENTS[device, size]))
    says = f"published, on a CPU: {duration} by arithmetic, and more where it is busy"
    return size, Check(group="machine", name="size", state="ok", says=says)


def _seconds(extent: Extent) -> float:
    """How long networks of the published size will compute on this CPU."""
    measured = Load(frames=extent.frames, voxels=extent.voxels)
    run = Load(frames=RUN_FRAMES, voxels=VOXELS)
    work = (CALLS + 1) * flop(DINOV2_VITL14_REG, run)
    for role, network in PUBLISHED.items():
        args = network_args(network.name.removeprefix("Elastic"), network.args)
        guided, steps = (2, RUN_STEPS) if role in (STRUCTURE_FLOW, LATENT_FLOW) else (1, 1)
        work += guided * (CALLS * flop(args, measured) + steps * flop(args, run))
    return work / product_rate(extent.half) / EFFICIENCY
