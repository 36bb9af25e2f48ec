"""Float16 on a CPU: told from descriptions alone, and answered by how long other precisions would take there."""

from collections.abc import Collection, Mapping

import torch

from ss4d.pipelines.durations import passes, product_rate, said_duration
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.arithmetic import Load, flop
from ss4d.stages.precision import Precision
from ss4d.stages.sampler_params import SamplerParams
from ss4d.stages.weights import describe, frame_tokens, torso_dtype

ASSUMED_FRAMES = 32  # of a clip that is not known


def computes_in_half(folder: ModelFolder, precision: Precision, roles: Collection[str]) -> bool:
    """Whether a network that plays one of `roles` computes in float16.

    Raises:
        ModelError: naming the description at fault.
    """
    return any(torso_dtype(describe(folder.description(role)), precision) == torch.float16 for role in roles)


def refusal(
    folder: ModelFolder, precision: Precision, uses: Mapping[str, SamplerParams | None], frames: int | None
) -> str:
    """What to choose instead, and how long that takes.

    Args:
        folder: that describes the networks.
        precision: that was chosen.
        uses: the roles of the networks to run, and the sampler of each that is sampled.
        frames: of the clip; None if it is not known.
    """
    load = Load(frames=frames or ASSUMED_FRAMES, tokens=frame_tokens(folder))
    work = sum(
        flop(describe(folder.description(role)).args, load) * passes(role, sampler) for role, sampler in uses.items()
    )
    clip = f"the {frames} frames of this clip" if frames else f"a clip of {ASSUMED_FRAMES} frames"
    return (
        f"precision {precision} computes in float16 here, for which a CPU is too slow: choose --set precision=bfloat16 "
        f"({said_duration(work / product_rate(torch.bfloat16))}) or --set precision=float32 "
        f"({said_duration(work / product_rate(torch.float32))}); both are estimated for {clip} and this model, "
        "from a short measurement on this machine"
    )
