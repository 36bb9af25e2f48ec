"""What a model makes of a clip's input view: as it comes, and fitted to that view as the stages of a run fit it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
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
from ss4d.stages.fitting.alignment import fit_camera
from ss4d.stages.fitting.appearance import Scene, fit_appearance, fit_latents_seen, fit_seen
from ss4d.stages.fitting.camera import find_camera, front_camera
from ss4d.stages.fitting.config import (
    AppearanceFitConfig,
    CameraConfig,
    CameraFitConfig,
    FrontCameraConfig,
    LatentFitConfig,
    StructureFitConfig,
)
from ss4d.stages.fitting.structure import fit_outline, fit_structure
from ss4d.stages.inflation import inflate
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.input_camera import in_grid
from ss4d.stages.nn.occupancy import occupied_cells
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.geometry import CROP_MARGIN
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
from ss4d.stages.types import (
    FittedVoxels,
    GaussianClip,
    InputCamera,
    StructuredLatents,
    Tokens,
    Voxels,
)

SAMPLING_SEED = 42
FIT_CONFIGS = (CameraConfig, CameraFitConfig, StructureFitConfig, AppearanceFitConfig, LatentFitConfig)
SIZE = 64  # pixels a side that a `Camera` is told for; fits scale it
LOG = logging.getLogger("ss4d.evaluation")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Which stages fit an answer to the input view, and whether they are told the true camera."""

    structure: bool = False
    appearance: bool = False
    latents: bool = False
    true_camera: bool = False


NO_FIT = Fit()
# What `ss4d eval --fit` measures of a model besides the model as it is.
FITS = {
    "model, voxels fitted": Fit(structure=True),
    "model, Gaussians fitted": Fit(appearance=True),
    "model, both fitted": Fit(structure=True, appearance=True),
    "both, latents too": Fit(structure=True, latents=True),
    "both, true camera": Fit(structure=True, appearance=True, true_camera=True),
    "both, latents too, true camera": Fit(structure=True, latents=True, true_camera=True),
}


class ClipAnswers:
    """What the whole model makes of the input view of one clip; what answers have in common is computed once.

    Args:
        clip: with the input view.
        model: all of it.
    """

    def __init__(self, clip: TrainingClip, model: Model) -> None:
        self._clip, self._model, self._seen = clip, model, input_clip(clip)
        self._fitted: dict[bool, FittedVoxels] = {}

    def answer(self, fit: Fit = NO_FIT) -> Answer:
        """The model's answer, fitted as `fit` says; nothing at all if the model finds no occupied cell."""
        if self._voxels is None:
            return Answer(_nothing(self._clip.num_frames), torch.zeros((0, 5), dtype=torch.int32))
        voxels = self._fitted_voxels(self._voxels, fit.true_camera) if fit.structure else self._voxels
        latents = _latents(self._images, voxels, self._model)
        decoder = self._model.network(GAUSSIAN_DECODER)
        gaussians = decode_gaussians(DecodingConfig(), decoder, latents)
        if not (fit.latents or fit.appearance):
            return Answer(gaussians, voxels.coords, None if fit.true_camera else in_grid(self._found, SIZE))
        camera = None if fit.true_camera else self._fitted_camera(gaussians)
        scene = self._true_scene if camera is None else Scene.of(self._seen, camera, SIZE, self._model.device)
        if fit.latents:
            gaussians = fit_latents_seen(LatentFitConfig(), decoder, latents, gaussians, scene)
        else:
            gaussians = fit_seen(AppearanceFitConfig(), gaussians, scene)
        return Answer(gaussians, voxels.coords, None if camera is None else in_grid(camera, SIZE))

    @cached_property
    def _images(self) -> Tokens:
        return encode_images(ConditioningConfig(), self._model.network(IMAGE_ENCODER), self._seen)

    @cached_property
    def _voxels(self) -> Voxels | None:
        try:
            return _structure(self._images, self._model)
        except InputError as error:  # raised for an empty structure alone: a bad answer, but an answer
            LOG.warning("%s: %s", self._clip.seed, error)
            return None

    @cached_property
    def _found(self) -> InputCamera:
        assert self._voxels is not None
        return find_camera(CameraConfig(), self._model.network(IMAGE_ENCODER), self._seen, self._voxels)

    def _fitted_camera(self, gaussians: GaussianClip) -> InputCamera:
        return fit_camera(CameraFitConfig(), gaussians, self._seen, self._found, self._model.device)

    def _fitted_voxels(self, voxels: Voxels, true_camera: bool) -> FittedVoxels:
        if true_camera not in self._fitted:
            config, decoder = StructureFitConfig(), self._model.network(STRUCTURE_DECODER)
            self._fitted[true_camera] = (
                fit_outline(config, decoder, voxels, self._seen, input_camera(self._clip, SOURCE_SIZE))
                if true_camera
                else fit_structure(config, decoder, voxels, self._seen, self._found)
            )
        return self._fitted[true_camera]

    @property
    def _true_scene(self) -> Scene:
        """The input with the true camera."""
        yaw = self._clip.yaw if self._clip.axes == "world" else 0.0
        device = torch.device(self._model.device)
        return Scene(clip=self._seen, camera=input_camera(self._clip, SOURCE_SIZE), yaw=yaw, device=device)


def inflated(clip: TrainingClip, resolution: int) -> Answer:
    """The input's silhouette as a solid, in a grid of so many cells along each axis."""
    gaussians = _resized(inflate(InflationConfig(), input_clip(clip)), _inflated_size(clip))
    return Answer(gaussians, occupied_by(gaussians, resolution))


def fitted_inflation(clip: TrainingClip, model: Model, resolution: int) -> Answer:
    """The input's silhouette as a solid, fitted to the input by the same stage."""
    seen, size = input_clip(clip), _inflated_size(clip)
    camera, solid = front_camera(FrontCameraConfig(), seen), inflate(InflationConfig(), seen)
    fitted = fit_appearance(AppearanceFitConfig(), solid, seen, camera, model.device)
    gaussians = _resized(fitted, size)
    nearer = replace(camera, distance=camera.distance * size)
    return Answer(gaussians, occupied_by(gaussians, resolution), in_grid(nearer, SIZE))


def _inflated_size(clip: TrainingClip) -> float:
    """Of an inflated silhouette in the clip's grid: there a side of the crop is one unit if the crop laid it out."""
    return 1 / CROP_MARGIN if clip.axes == "crop" else 1.0


def _resized(gaussians: GaussianClip, size: float) -> GaussianClip:
    """The Gaussians so many times as large about the origin."""
    arrays = {name: getattr(gaussians, name) for name in GaussianClip.specs()}
    return GaussianClip(**{**arrays, "means": gaussians.means * size, "scales": gaussians.scales * size})


def _structure(images: Tokens, model: Model) -> Voxels:
    flow, decoder = model.network(STRUCTURE_FLOW), model.network(STRUCTURE_DECODER)
    sampler = SamplerConfig().resolve(model.folder.structure_sampler)
    return sample_structure(SparseStructureConfig(sampler=sampler), flow, decoder, images, _generator())


def _latents(images: Tokens, voxels: Voxels, model: Model) -> StructuredLatents:
    normalization, flow = model.folder.slat_normalization, model.network(LATENT_FLOW)
    sampler = SamplerConfig().resolve(model.folder.slat_sampler)
    return sample_latents(SlatConfig(sampler=sampler), flow, normalization, images, voxels, _generator())


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
