"""Which networks take part in a step of training, and which of them learn."""

from ss4d.stages.training.appearance import AppearanceAutoencoder, start_decoder, start_encoder
from ss4d.stages.training.end_to_end import (
    LEARNED_STEPS,
    ObjectSamples,
    SampledGaussians,
    SampledVoxels,
    StructureSamples,
)
from ss4d.stages.training.flows import LatentsFlow, StructureFlow
from ss4d.stages.training.folder import IMAGE_ENCODER
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
            results.network("sparse_structure_flow_model", step),
            results.network(IMAGE_ENCODER, step),
            results.network("sparse_structure_encoder", step),
            results.network("sparse_structure_decoder", step),
            learn_images=results.training.start is None,
        )
    if step == "latents":
        return LatentsFlow(
            results.network("slat_flow_model", step),
            results.network(IMAGE_ENCODER, step),
            results.network("slat_encoder", step),
            results.normalization(),
            results.network("slat_decoder_gs", step),
        )
    structure_sampler, slat_sampler = results.samplers()
    structure = StructureSamples(
        results.network(IMAGE_ENCODER, step),
        results.network("sparse_structure_flow_model", step),
        structure_sampler,
        learned_steps=LEARNED_STEPS if step == "voxels" else 0,
    )
    if step == "voxels":
        return SampledVoxels(_occupancy(step, results, learn_decoder=True), structure)
    objects = ObjectSamples(
        structure,
        results.network("sparse_structure_decoder", step),
        results.network("slat_flow_model", step),
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
        results.network("sparse_structure_encoder", step),
        results.network("sparse_structure_decoder", step),
        learn_decoder=learn_decoder,
    )


def _appearance(step: str, results: Results, *, learn_decoder: bool) -> AppearanceAutoencoder:
    return AppearanceAutoencoder(
        results.network("slat_encoder", step), results.network("slat_decoder_gs", step), learn_decoder=learn_decoder
    )
