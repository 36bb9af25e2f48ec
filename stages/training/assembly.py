"""Which networks take part in a step of training, and which of them learn."""

from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.training.appearance import AppearanceAutoencoder, start_decoder, start_encoder
from ss4d.stages.training.end_to_end import (
    LEARNED_STEPS,
    ObjectSamples,
    SampledGaussians,
    SampledVoxels,
    StructureSamples,
)
from ss4d.stages.training.flows import LatentsFlow, StructureFlow
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.occupancy import OccupancyAutoencoder
from ss4d.stages.training.options import ENCODERS_OF
from ss4d.stages.training.results import Results


def build_objective(step: str, results: Results) -> Objective:
    """What a step trains, as the steps before it left it."""
    if step in ENCODERS_OF:
        return _autoencoder(step, results)
    if step == "structure":
        return StructureFlow(
            results.network(STRUCTURE_FLOW, step),
            results.network(IMAGE_ENCODER, step),
            results.network(STRUCTURE_ENCODER, step),
            results.network(STRUCTURE_DECODER, step),
            learn_images=results.training.start is None,
        )
    if step == "latents":
        return LatentsFlow(
            results.network(LATENT_FLOW, step),
            results.network(IMAGE_ENCODER, step),
            results.network(LATENT_ENCODER, step),
            results.normalization(),
            results.network(GAUSSIAN_DECODER, step),
        )
    structure_sampler, slat_sampler = results.samplers()
    structure = StructureSamples(
        results.network(IMAGE_ENCODER, step),
        results.network(STRUCTURE_FLOW, step),
        structure_sampler,
        learned_steps=LEARNED_STEPS if step == "voxels" else 0,
    )
    if step == "voxels":
        return SampledVoxels(_occupancy(step, results, learn_decoder=True), structure)
    objects = ObjectSamples(
        structure,
        results.network(STRUCTURE_DECODER, step),
        results.network(LATENT_FLOW, step),
        results.normalization(),
        slat_sampler,
        learned_steps=LEARNED_STEPS,
    )
    return SampledGaussians(_appearance(step, results, learn_decoder=True), objects)


def _autoencoder(step: str, results: Results) -> Objective:
    start = results.training.start
    fixed = start is not None and ENCODERS_OF[step] not in start.networks
    if step == "occupancy":
        return _occupancy(step, results, learn_decoder=not fixed)
    autoencoder = _appearance(step, results, learn_decoder=not fixed)
    if start is None:
        start_decoder(autoencoder.decoder)
    if start is None or fixed:
        start_encoder(autoencoder.encoder)
    return autoencoder


def _occupancy(step: str, results: Results, *, learn_decoder: bool) -> OccupancyAutoencoder:
    return OccupancyAutoencoder(
        results.network(STRUCTURE_ENCODER, step),
        results.network(STRUCTURE_DECODER, step),
        learn_decoder=learn_decoder,
    )


def _appearance(step: str, results: Results, *, learn_decoder: bool) -> AppearanceAutoencoder:
    return AppearanceAutoencoder(
        results.network(LATENT_ENCODER, step), results.network(GAUSSIAN_DECODER, step), learn_decoder=learn_decoder
    )
