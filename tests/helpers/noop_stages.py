"""A package of all six stages that compute nothing: what is left of a run is the orchestration around them.

They take what the real ones take and give values of the same arrays, of one frame and one cell, so that the same
number of files is read and written.
"""

from pathlib import Path
from typing import Literal

import torch

from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, GaussianClip, StructuredLatents, Tokens, Voxels
from tests.helpers.packages import install_stages
from tests.helpers.unfitted import OFF

COORDS = torch.zeros(1, 5, dtype=torch.int32)


class NoopConfig(StageConfig):
    method: Literal["noop"] = "noop"
    variant: int = 0  # another one gives another key


def segment(config: NoopConfig, inputs: StageInputs) -> Clip:
    return Clip(
        rgb=inputs.video().frames[..., :3].contiguous(),
        alpha=torch.full((1, 8, 8), 255, dtype=torch.uint8),
        crop=torch.tensor([0, 0, 8, 8]),
        confidence=torch.ones(1),
        method="noop",
        fps=24.0,
    )


def encode(config: NoopConfig, inputs: StageInputs) -> Tokens:
    inputs.value("segmentation", Clip)
    return Tokens(feats=torch.zeros(1, 1, 8))


def structure(config: NoopConfig, inputs: StageInputs) -> Voxels:
    inputs.value("conditioning", Tokens)
    return Voxels(coords=COORDS, latent=torch.zeros(1, 1, 2, 2, 2), resolution=2)


def latents(config: NoopConfig, inputs: StageInputs) -> StructuredLatents:
    inputs.value("conditioning", Tokens)
    voxels = inputs.value("sparse_structure", Voxels)
    return StructuredLatents(coords=voxels.coords, feats=torch.zeros(1, 8), num_frames=1, resolution=2)


def decode(config: NoopConfig, inputs: StageInputs) -> GaussianClip:
    inputs.value("slat", StructuredLatents)
    return GaussianClip(
        means=torch.zeros(1, 3),
        scales=torch.ones(1, 3),
        quats=torch.eye(4)[:1],
        colors=torch.ones(1, 3),
        opacities=torch.ones(1),
        offsets=torch.tensor([0, 1]),
    )


def export(config: NoopConfig, inputs: StageInputs) -> None:
    inputs.value("decoding", GaussianClip)
    inputs.value("segmentation", Clip)
    (inputs.folder / "asset.txt").write_text("nothing")


SEGMENTATION = Implementation(stage="segmentation", config=NoopConfig, run=segment, source=True)
CONDITIONING = Implementation(stage="conditioning", config=NoopConfig, run=encode, inputs=("segmentation",))
SPARSE_STRUCTURE = Implementation(
    stage="sparse_structure", config=NoopConfig, run=structure, inputs=("conditioning",), seeded=True
)
SLAT = Implementation(
    stage="slat", config=NoopConfig, run=latents, inputs=("conditioning", "sparse_structure"), seeded=True
)
DECODING = Implementation(stage="decoding", config=NoopConfig, run=decode, inputs=("slat",))
EXPORT = Implementation(stage="export", config=NoopConfig, run=export, inputs=("decoding", "segmentation"))

STAGES = tuple(
    implementation.stage for implementation in (SEGMENTATION, CONDITIONING, SPARSE_STRUCTURE, SLAT, DECODING, EXPORT)
)
METHODS = (*(f"{stage}.method=noop" for stage in STAGES), *OFF)


def install(site: Path) -> None:
    """Makes the stages known to every process that has the folder `site` on its path."""
    install_stages(site, "noop-stages", {f"{stage}.noop": f"{__name__}:{stage.upper()}" for stage in STAGES})
