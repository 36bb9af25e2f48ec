"""What a model makes of a clip's input view: as it comes, and fitted to that view as the stages of a run fit it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ss4d.pipelines.networks import Model
from ss4d.stages.conditioning import encode_images
from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.data.clip import SOURCE_SIZE, TrainingClip
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import InputError
from ss4d.stages.evaluation.baselines import Answer, occupied_by
from ss4d.stages.evaluation.views import input_camera, input_clip
from ss4d.stages.fitting.appearance import fit_seen
from ss4d.stages.fitting.camera import find_camera, front_camera
from ss4d.stages.fitting.config import AppearanceFitConfig, CameraConfig, FrontCameraConfig, StructureFitConfig
from ss4d.stages.fitting.structure import fit_outline
from ss4d.stages.inflation import inflate
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.input_camera import in_grid, yaw_in_grid
from ss4d.stages.nn.occupancy import occupied_cells
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Camera, GaussianClip, StructuredLatents, Tokens, Voxels

SAMPLING_SEED = 42
FIT_CONFIGS = (CameraConfig, StructureFitConfig, AppearanceFitConfig)
SIZE = 64  # pixels a side that a `Camera` is told for; fits scale it
LOG = logging.getLogger("ss4d.evaluation")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Which stages fit an answer to the input view, and whether they are told the true camera."""

    structure: bool = False
    appearance: bool = False
    true_camera: bool = False


NO_FIT = Fit()
# What `ss4d eval --fit` measures of a model besides the model as it is.
FITS = {
    "model, voxels fitted": Fit(structure=True),
    "model, Gaussians fitted": Fit(appearance=True),
    "model, both fitted": Fit(structure=True, appearance=True),
    "both, true camera": Fit(structure=True, appearance=True, true_camera=True),
}


def model_answer(clip: TrainingClip, model: Model, fit: Fit = NO_FIT) -> Answer:
    """What the whole model makes of the input view; nothing at all if it finds no occupied cell."""
    seen = input_clip(clip)
    images = encode_images(ConditioningConfig(), model.network(IMAGE_ENCODER), seen)
    try:
        voxels = _structure(images, model)
    except InputError as error:  # raised for an empty structure alone: a bad answer, but an answer
        LOG.warning("%s: %s", clip.seed, error)
        return Answer(_nothing(clip.num_frames), torch.zeros((0, 5), dtype=torch.int32))
    camera, yaw = _camera(clip, voxels, model, fit) if fit != NO_FIT else (None, 0.0)
    if fit.structure and camera is not None:
        voxels = fit_outline(StructureFitConfig(), model.network(STRUCTURE_DECODER), voxels, seen, camera)
    gaussians = _gaussians(images, voxels, model)
    if fit.appearance and camera is not None:
        gaussians = fit_seen(AppearanceFitConfig(), gaussians, seen, camera, yaw, model.device)
    return Answer(gaussians, voxels.coords)


def fitted_inflation(clip: TrainingClip, model: Model, resolution: int) -> Answer:
    """The input's silhouette as a solid, fitted to the input by the same stage."""
    seen = input_clip(clip)
    camera = in_grid(front_camera(FrontCameraConfig(), seen), SIZE)
    solid = inflate(InflationConfig(), seen)
    gaussians = fit_seen(AppearanceFitConfig(), solid, seen, camera, 0.0, model.device)
    return Answer(gaussians, occupied_by(gaussians, resolution))


def _camera(clip: TrainingClip, voxels: Voxels, model: Model, fit: Fit) -> tuple[Camera, float]:
    """The input's camera in the grid, and its yaw there."""
    if fit.true_camera:
        return input_camera(clip, SOURCE_SIZE), clip.yaw if clip.axes == "world" else 0.0
    found = find_camera(CameraConfig(), model.network(IMAGE_ENCODER), input_clip(clip), voxels)
    return in_grid(found, SIZE), yaw_in_grid(found)


def _structure(images: Tokens, model: Model) -> Voxels:
    flow, decoder = model.network(STRUCTURE_FLOW), model.network(STRUCTURE_DECODER)
    sampler = SamplerConfig().resolve(model.folder.structure_sampler)
    return sample_structure(SparseStructureConfig(sampler=sampler), flow, decoder, images, _generator())


def _gaussians(images: Tokens, voxels: Voxels, model: Model) -> GaussianClip:
    normalization = model.folder.slat_normalization
    flow, decoder = model.network(LATENT_FLOW), model.network(GAUSSIAN_DECODER)
    sampler = SamplerConfig().resolve(model.folder.slat_sampler)
    latents = sample_latents(SlatConfig(sampler=sampler), flow, normalization, images, voxels, _generator())
    return decode_gaussians(DecodingConfig(), decoder, latents)


def autoencoded(clip: TrainingClip, model: Model, encoders: Mapping[str, Any]) -> Answer:
    """The truth through both autoencoders: occupancy through one, the true cells' looks through the other."""
    decoder = model.network(STRUCTURE_DECODER)
    device = decoder.out_layer[-1].weight.device
    side = clip.resolution
    grids = torch.zeros(clip.num_frames, 1, side, side, side)
    t, x, y, z = clip.coords[:, 1:].long().unbind(1)
    grids[t, 0, x, y, z] = 1
    with torch.no_grad():
        latent, _ = encoders[STRUCTURE_ENCODER](grids.to(device))
        cells, _ = occupied_cells(decoder, latent)
        sites = Sites(clip.coords.to(device))
        mean, _ = encoders[LATENT_ENCODER](SparseTensor(sites, clip.feats.to(device)))
    latents = StructuredLatents(
        coords=clip.coords, feats=mean.float().cpu(), num_frames=clip.num_frames, resolution=side
    )
    return Answer(decode_gaussians(DecodingConfig(), model.network(GAUSSIAN_DECODER), latents), cells)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SAMPLING_SEED)


def _nothing(num_frames: int) -> GaussianClip:
    empty = torch.zeros(0, 3)
    return GaussianClip(
        means=empty,
        scales=empty,
        quats=torch.zeros(0, 4),
        colors=empty,
        opacities=torch.zeros(0),
        offsets=torch.zeros(num_frames + 1, dtype=torch.int64),
    )
