"""Errors of solvers and of windows over time: `python -m tests.benchmarks.sampling RUN [solvers|windows]`.

RUN is a folder that `ss4d run CLIP --goal slat` made with the bundled model. Errors are root mean squares over all
latents, relative to the spread of the latents that they are errors of.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import ss4d
from ss4d.pipelines.hub import model_path
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampler_params import Solver
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.types import GaussianClip, StructuredLatents, Tokens, Voxels
from ss4d.stages.weights import load_role
from tests.benchmarks.timing import print_table, say

STEPS, EXACT = (2, 3, 4, 6, 8, 10, 12, 16, 25), 200
GUIDED = {"without guidance": 0.0, "guided by 3 for t over 0.5": 3.0}
SOLVER_FRAMES, WINDOWS = 8, (16, 8)
PICTURE_STEP = 4  # frames from one that is drawn to the next
SEED, OTHER_SEED = 42, 43
CPU = torch.device("cpu")


class Model:
    """The networks of the bundled model that these stages take, and a clip's tokens and voxels."""

    def __init__(self, run: Path) -> None:
        folder = ModelFolder.open(model_path("bundled:tiny"))
        self.flow, self.decoder = (
            load_role(folder, role, TORCH_OPS, device=CPU) for role in (LATENT_FLOW, GAUSSIAN_DECODER)
        )
        self.normalization = folder.slat_normalization
        opened = ss4d.open_run(run)
        self.tokens, self.voxels = opened["conditioning"].value(), opened["sparse_structure"].value()

    def first(self, count: int) -> tuple[Tokens, Voxels]:
        """The first frames of the clip."""
        coords, voxels = self.voxels.coords, self.voxels
        kept = coords[coords[:, 1] < count]
        cut = Voxels(coords=kept, latent=voxels.latent[:count], resolution=voxels.resolution)
        return Tokens(feats=self.tokens.feats[:count]), cut

    def latents(self, frames: int, config: SlatConfig, seed: int = SEED) -> StructuredLatents:
        generator = torch.Generator().manual_seed(seed)
        return sample_latents(config, self.flow, self.normalization, *self.first(frames), generator)

    def decoded(self, latents: StructuredLatents, window: int | None = None) -> GaussianClip:
        return decode_gaussians(DecodingConfig(window=window), self.decoder, latents)


def config(steps: int, strength: float, solver: Solver = "euler", window: int | None = None) -> SlatConfig:
    sampler = SamplerConfig(
        steps=steps, cfg_strength=strength, cfg_interval=(0.5, 1.0), rescale_t=3.0, temperature=1.0, solver=solver
    )
    return SlatConfig(sampler=sampler, window=window)


def error(given: Tensor, exact: Tensor) -> float:
    return float((given - exact).square().mean().sqrt() / exact.std())


def solvers(model: Model) -> Iterator[tuple[str, dict[str, str]]]:
    """A table for each kind of guidance: errors of both solvers by the number of steps."""
    for words, strength in GUIDED.items():
        say(words)
        exact = model.latents(SOLVER_FRAMES, config(EXACT, strength, "adams_bashforth")).feats
        rows = {}
        for steps in STEPS:
            errors = [
                error(model.latents(SOLVER_FRAMES, config(steps, strength, solver)).feats, exact)
                for solver in ("euler", "adams_bashforth")
            ]
            rows[f"{steps} steps: euler, adams_bashforth"] = " | ".join(f"{value:.4f}" for value in errors)
        yield f"error of {SOLVER_FRAMES} frames, {words}", rows


def windows(model: Model) -> dict[str, str]:
    """What windows change, and for comparison another seed, in the latents and in the pictures."""
    frames = model.voxels.num_frames
    plain = config(12, 0.0)
    whole = model.latents(frames, plain)
    asset = model.decoded(whole)

    def row(latents: StructuredLatents, decoded: GaussianClip) -> str:
        return f"{error(latents.feats, whole.feats):.3f} | {picture_error(decoded, asset):.1f} dB"

    rows = {}
    for window in WINDOWS:
        say(f"windows of {window}")
        latents = model.latents(frames, config(12, 0.0, window=window))
        rows[f"slat.window {window}"] = row(latents, model.decoded(latents))
        rows[f"decoding.window {window}"] = row(whole, model.decoded(whole, window))
        rows[f"both {window}"] = row(latents, model.decoded(latents, window))
    other = model.latents(frames, plain, OTHER_SEED)
    rows["another seed"] = row(other, model.decoded(other))
    return rows


def picture_error(given: GaussianClip, exact: GaussianClip) -> float:
    """Peak signal-to-noise ratio of pictures from the front and the side, in dB."""
    errors = []
    for yaw in (FRONT_YAW, FRONT_YAW + 90):
        camera = orbit_camera(yaw, 15, size=192)
        for t in range(0, exact.num_frames, PICTURE_STEP):
            pictures = [rasterize(clip.frame(t), camera, background=(1, 1, 1))[0] for clip in (given, exact)]
            errors.append((pictures[0] - pictures[1]).square().mean())
    return float(-10 * torch.stack(errors).mean().log10())


def main() -> None:
    model, wanted = Model(Path(sys.argv[1])), sys.argv[2:] or ["solvers", "windows"]
    if "solvers" in wanted:
        for title, rows in solvers(model):
            print_table(title, rows)
    if "windows" in wanted:
        print_table(f"windows of {model.voxels.num_frames} frames: difference of latents, of pictures", windows(model))


if __name__ == "__main__":
    main()
