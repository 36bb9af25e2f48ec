"""What a run will cost before it begins: arithmetic, memory and time of each stage with networks, as estimates."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ss4d.pipelines.config import RunConfig
from ss4d.pipelines.durations import passes, product_rate
from ss4d.pipelines.loading import KEPT_TOKENS, device_memory
from ss4d.pipelines.plan import REUSE, RUN
from ss4d.pipelines.prepare import Preparation
from ss4d.pipelines.stage_result import stored_result
from ss4d.stages.frame_windows import frame_windows
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.arithmetic import Load, flop
from ss4d.stages.nn.peaks import kept, peak
from ss4d.stages.ops.device import Device
from ss4d.stages.weights import describe, frame_tokens, torso_dtype, weights_size

EFFICIENCY = 0.5  # of the rate of large matrix products, which networks reach as a whole
BESIDE = 1 << 30  # bytes that a process takes on a device besides weights and what passes through them


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """What a stage will cost.

    Attributes:
        stage: its name.
        flop: floating-point operations, by what they are computed in.
        peak: bytes of its networks, of what passes through them, and of what they keep from pass to pass.
    """

    stage: str
    flop: dict[torch.dtype, float]
    peak: float

    def seconds(self, device: Device) -> float:
        """How long it takes on a device of this machine, whose matrix products are timed for that."""
        return sum(count / product_rate(dtype, device) for dtype, count in self.flop.items()) / EFFICIENCY


def forecast(run: Preparation, frames: int) -> list[StageForecast]:
    """The stages of a run that have networks and are to be computed, if the clip has so many frames."""
    running = [step.stage for step in run.steps if step.action == RUN]
    return forecast_stages(run.config, run.model.folder, running, frames, known_voxels(run, frames))


def forecast_stages(
    config: RunConfig, folder: ModelFolder, stages: Sequence[str], frames: int, voxels: float | None
) -> list[StageForecast]:
    """Those of the named stages that have networks, for a clip of so many frames and voxels a frame.

    Args:
        config: with every value filled in.
        folder: that describes the networks; their weights need not be there.
        stages: by name.
        frames: of the clip.
        voxels: of a frame; None if that is not known.
    """
    chosen, room, found = config.stages(), KEPT_TOKENS[config.memory], []
    running = [stage for stage in stages if chosen[stage].roles]
    tokens = frame_tokens(folder) if running else 0
    for stage in running:
        windows = frame_windows(frames, getattr(config.section(stage), "window", None), 1)
        load = Load(frames=len(windows[0]), voxels=voxels, tokens=tokens)
        work: dict[torch.dtype, float] = {}
        staying = passing = 0.0
        for role, sampler in config.uses([stage]).items():
            network = describe(folder.description(role))
            dtype = torso_dtype(network, config.precision)
            times = passes(role, sampler) * len(windows)
            work[dtype] = work.get(dtype, 0) + times * flop(network.args, load)
            staying += weights_size(folder, role, config.precision)
            staying += len(windows) * kept(network.args, dtype.itemsize, load, room // len(windows))
            passing = max(passing, peak(network.args, dtype.itemsize, load))
        found.append(StageForecast(stage=stage, flop=work, peak=staying + passing))
    return found


def known_voxels(run: Preparation, frames: int) -> float | None:
    """Of a frame, if the sparse structure is stored."""
    step = next((step for step in run.steps if step.stage == "sparse_structure"), None)
    known = stored_result(run.store, step.ref) if step is not None and step.action == REUSE else None
    return known.measures["voxels"] / frames if known is not None and "voxels" in known.measures else None


def shortage(run: Preparation, frames: int) -> str | None:
    """What to say if a run will not fit the memory of its device; None if it will, or if the device is not here."""
    if not run.model.has_device:
        return None
    device, stages = run.model.device, forecast(run, frames)
    memory = device_memory(device)
    if _fits(stages, memory):
        return None
    worst = max(stages, key=lambda stage: stage.peak)
    return (
        f"{worst.stage} is estimated to take {worst.peak / 2**30:.1f} GiB for {frames} frames, and the {device} "
        f"has {memory / 2**30:.1f} GiB: {_remedy(run, frames, memory)} would fit"
    )


def _remedy(run: Preparation, frames: int, memory: int) -> str:
    """What would fit where the whole clip does not."""
    lean = replace(run, config=run.config.model_copy(update={"memory": "low"}))
    if _fits(forecast(lean, frames), memory):
        return "--memory low"
    fewer = bisect(range(1, frames), False, key=lambda count: not _fits(forecast(lean, count), memory))
    if not fewer:
        return "no number of frames"
    saving = "" if _fits(forecast(run, fewer), memory) else "--memory low with "
    return f"{saving}--set input.frames={fewer}"


def _fits(stages: Sequence[StageForecast], memory: int) -> bool:
    return all(stage.peak + BESIDE <= memory for stage in stages)
