"""The objectives through the samplers, with untrained networks of a few weights: what learns, from what, what stays."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ss4d.stages.data.clip import ClipSpec, TrainingClip, make_clip
from ss4d.stages.ops.backend import TORCH_OPS
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
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.training.appearance import AppearanceAutoencoder, AppearanceSettings, start_decoder, start_encoder
from ss4d.stages.training.clips import cut, step_generator
from ss4d.stages.training.end_to_end import SAMPLED, ObjectSamples, SampledGaussians, SampledVoxels, StructureSamples
from ss4d.stages.training.flows import image_tokens, sampled
from ss4d.stages.training.fresh import fresh_network
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.occupancy import OccupancyAutoencoder
from ss4d.stages.training.recipe import SMOKE
from ss4d.stages.training.tiny import SLAT_SAMPLER, STRUCTURE_SAMPLER
from ss4d.stages.types import Tokens

NUMBERS = LatentNormalization(mean=(0.5,) * 8, std=(2.0,) * 8)


@pytest.fixture(scope="module")
def clips() -> list[TrainingClip]:
    spec = ClipSpec(seed=0, num_frames=6, input_size=32, num_views=4, view_size=24, resolution=8)
    return [make_clip(dataclasses.replace(spec, seed=seed)) for seed in (1, 2)]


def network(role: str) -> nn.Module:
    """New, but not silent: flows begin with a velocity of 0."""
    made = fresh_network(role, *SMOKE.networks[role], TORCH_OPS, seed=0)
    if "flow" in role:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            made.out_layer.weight.normal_(std=0.05)
    return made


def structure_samples(learned_steps: int = 0) -> StructureSamples:
    return StructureSamples(
        network(IMAGE_ENCODER), network(STRUCTURE_FLOW), STRUCTURE_SAMPLER, learned_steps=learned_steps
    )


def object_samples() -> ObjectSamples:
    decoder, flow = network(STRUCTURE_DECODER), network(LATENT_FLOW)
    return ObjectSamples(structure_samples(), decoder, flow, NUMBERS, SLAT_SAMPLER, learned_steps=2)


def voxels() -> SampledVoxels:
    autoencoder = OccupancyAutoencoder(network(STRUCTURE_ENCODER), network(STRUCTURE_DECODER))
    return SampledVoxels(autoencoder, structure_samples(learned_steps=2))


def gaussians() -> SampledGaussians:
    encoder, decoder = network(LATENT_ENCODER), network(GAUSSIAN_DECODER)
    start_encoder(encoder)
    start_decoder(decoder)
    autoencoder = AppearanceAutoencoder(encoder, decoder, AppearanceSettings(num_frames=3, num_views=2, motion=1.0))
    return SampledGaussians(autoencoder, object_samples())


BOTH = pytest.mark.parametrize("build", [voxels, gaussians])


def generator(step: int = 0) -> torch.Generator:
    return step_generator(0, "test", step)


@BOTH
def test_a_few_steps_lower_both_losses_on_a_fixed_batch(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    weights = [w for trained in objective.trained().values() for w in trained.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    measured = []
    for _ in range(12):
        losses = objective.loss(clips, generator())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        measured.append({"total": float(losses.total.detach())} | {n: float(part) for n, part in losses.parts.items()})
    names = ("total", "dice", "coded_dice") if build is voxels else ("total", "l1", "coded_l1")
    for name in names:
        assert measured[-1][name] < 0.9 * measured[0][name], name


@BOTH
def test_a_step_is_a_function_of_its_generator(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    first, again, other = (float(objective.loss(clips, generator(n)).total.detach()) for n in (3, 3, 4))
    assert first == again != other


@BOTH
def test_half_precision_is_close(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    exact = objective.loss(clips, generator()).total
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective.loss(clips, generator()).total
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


@pytest.mark.parametrize(
    ("build", "flow", "decoder"),
    [
        (voxels, STRUCTURE_FLOW, STRUCTURE_DECODER),
        (gaussians, LATENT_FLOW, GAUSSIAN_DECODER),
    ],
)
def test_flow_and_decoder_learn_and_nothing_else(build, flow: str, decoder: str, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    trained = objective.trained()
    assert set(trained) == {flow, decoder}
    objective.loss(clips, generator()).total.backward()
    for name, weight in trained[decoder].named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    assert trained[flow].out_layer.weight.grad.abs().max() > 0
    samples = objective._samples
    structure = samples if build is voxels else samples._structure
    others = [objective._autoencoder.encoder, structure.image_encoder]
    for other in others if build is voxels else (*others, structure.flow, samples._decoder):
        assert all(weight.grad is None and not weight.requires_grad for weight in other.parameters())


@pytest.mark.parametrize("learned", [0, 1, 3, 12, 20])
def test_the_last_steps_of_the_sampler_are_learned_from(learned: int) -> None:
    heard = []
    weight = torch.ones((), requires_grad=True)

    def flow(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        heard.append(torch.is_grad_enabled())
        return weight * x

    sampler = dataclasses.replace(STRUCTURE_SAMPLER, steps=12, cfg_strength=0.0)
    made = sampled(flow, torch.ones(2, 3), torch.zeros(2, 5, 1, 1), sampler, learned)
    learned = min(learned, 12)
    assert heard == [False] * (12 - learned) + [True] * learned
    assert made.requires_grad == (learned > 0)
    with torch.no_grad():
        assert not sampled(flow, torch.ones(2, 3), torch.zeros(2, 5, 1, 1), sampler, learned).requires_grad


@BOTH
def test_the_loss_is_that_of_samples_and_that_of_codes(build, clips: list[TrainingClip]) -> None:
    """With the samples' terms known, what is left is the autoencoder's own loss."""
    objective: Objective = build()
    losses = objective.loss(clips, generator())
    parts = {name: float(part) for name, part in losses.parts.items()}
    settings = objective._autoencoder.settings
    if build is voxels:
        weights, sampled = {"bce": 1.0, "dice": 1.0}, {"motion": 1.0}
        own = {"coded_kl": settings.kl}
    else:
        weights = {"l1": 1.0, "dssim": settings.ssim, "transparency": settings.transparency, "volume": settings.volume}
        weights, sampled = weights | {"motion": settings.motion}, {}
        own = {"coded_kl": settings.kl, "coded_color": settings.color}
    made = sum(weight * parts[name] for name, weight in (weights | sampled).items())
    coded = sum(weight * parts[f"coded_{name}"] for name, weight in weights.items())
    coded += sum(weight * parts[name] for name, weight in own.items())
    assert float(losses.total.detach()) == pytest.approx(SAMPLED * made + (1 - SAMPLED) * coded, rel=1e-5)


@BOTH
def test_pictures_are_the_same_twice(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    (first,), (again,) = (objective.pictures(clips[:1]).values() for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.ndim == 3
    assert torch.equal(first, again)


def test_samples_are_those_of_a_run(clips: list[TrainingClip]) -> None:
    samples = object_samples()
    structure = samples._structure
    with torch.no_grad():
        coords, latents = samples(clips[:1], generator())
        feats = image_tokens(structure.image_encoder, clips[:1], torch.device("cpu"))
        tokens = Tokens(feats=feats[0], guess=structure.guess(feats))
    configs = [SamplerConfig(**dataclasses.asdict(params)) for params in (STRUCTURE_SAMPLER, SLAT_SAMPLER)]
    found = sample_structure(
        SparseStructureConfig(sampler=configs[0]), structure.flow, samples._decoder, tokens, generator()
    )
    again = sample_latents(SlatConfig(sampler=configs[1]), samples.flow, NUMBERS, tokens, found, generator())
    assert torch.equal(found.coords, coords)
    assert_close(again.feats, latents, atol=1e-4, rtol=1e-4)


def test_the_image_encoders_guess_counts_half_in_the_voxels_that_learn(clips: list[TrainingClip]) -> None:
    found = []
    for logit in (-1000.0, 1000.0):
        objective = voxels()
        with torch.no_grad():
            objective._samples.image_encoder.cells.bias[0] = logit
        found.append(float(objective.loss(clips, generator()).parts["bce"]))
    full = sum(len(clip.coords) for clip in clips) / (len(clips) * 6 * 8**3)
    # A cell that half of 1000 says is wrong costs 500: all that are full, or all the others.
    assert found == pytest.approx([500 * full, 500 * (1 - full)], rel=0.02)


def test_a_clip_is_sampled_among_others_as_alone(clips: list[TrainingClip]) -> None:
    """Without noise, that is: whose numbers come one after the other."""
    samples = object_samples()
    samples._sampler = dataclasses.replace(SLAT_SAMPLER, temperature=0.0)
    samples._structure._sampler = dataclasses.replace(STRUCTURE_SAMPLER, temperature=0.0)
    with torch.no_grad():
        coords, latents = samples(clips, generator())
    for number in range(2):
        rows = coords[:, 0] == number
        with torch.no_grad():
            alone, its_latents = samples(clips[number : number + 1], generator())
        assert torch.equal(alone[:, 1:], coords[rows][:, 1:])
        assert_close(its_latents, latents[rows], atol=1e-4, rtol=1e-4)


class Told:
    """Samples that find the same voxels in every clip."""

    frame_multiple = 2

    def __init__(self, coords: Tensor) -> None:
        self._coords = coords

    def __call__(self, clips: list[TrainingClip], _: torch.Generator) -> tuple[Tensor, Tensor]:
        found = [self._coords + self._coords.new_tensor([b, 0, 0, 0, 0]) for b in range(len(clips))]
        coords = torch.cat(found)
        inside = coords[:, 1] < clips[0].num_frames
        return coords[inside], coords[inside].float().repeat(1, 2)[:, :8]


def test_sampled_voxels_are_those_of_the_chosen_frames(clips: list[TrainingClip]) -> None:
    """Frames keep their number in the clip, and every latent its voxel."""
    objective = gaussians()
    coords = torch.nonzero(torch.rand(6, 8, 8, 8, generator=generator()) < 0.1).int()
    coords = torch.cat([torch.zeros_like(coords[:, :1]), coords], 1)
    objective._samples = Told(coords)
    choices = [objective._autoencoder.choose(clip, generator(n)) for n, clip in enumerate(clips)]
    scene = objective._autoencoder.scene(choices, torch.zeros(12, 3))
    made, latents = objective._made(clips, choices, scene, generator())
    assert torch.equal(latents[:, :5], made.sites.coords.float())
    for b, choice in enumerate(choices):
        for frame in range(3):
            there = (coords[:, 1] == choice.start + frame).sum()
            rows = (made.sites.coords[:, 0] == b) & (made.sites.coords[:, 1] == choice.start + frame)
            assert rows.sum() == there == made.sizes[3 * b + frame]
    assert made.sizes.sum() == len(made.sites)


def test_a_batch_in_which_no_voxel_is_found_still_teaches_its_codes(clips: list[TrainingClip]) -> None:
    objective = gaussians()
    objective._samples = Told(torch.zeros(0, 5, dtype=torch.int32))
    losses = objective.loss(clips, generator())
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(part.isfinite() for part in losses.parts.values())
    assert any(weight.grad.abs().max() > 0 for weight in objective._autoencoder.decoder.parameters())


def test_clips_of_several_lengths_are_sampled_as_long_as_the_shortest(clips: list[TrainingClip]) -> None:
    for build in (voxels, gaussians):
        assert build().loss([clips[0], cut(clips[1], 1, 5)], generator()).total.isfinite()
