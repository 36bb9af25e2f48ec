"""The flows' objectives, the statistics that come before them, and adapters, on networks of a few weights."""

import copy
import dataclasses

import pytest
import torch

from ss4d.stages.data.clip import ClipSpec, TrainingClip, make_clip
from ss4d.stages.errors import InputError
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
from ss4d.stages.sampler_params import LatentNormalization
from ss4d.stages.sampling import Step, clean_estimate
from ss4d.stages.training.batches import batch_coords, occupancy_grids, window
from ss4d.stages.training.clips import step_generator
from ss4d.stages.training.flows import (
    LatentsFlow,
    StructureFlow,
    bridge,
    dropped,
    image_tokens,
    random_times,
)
from ss4d.stages.training.fresh import fresh_network
from ss4d.stages.training.lora import add_adapters, merge_adapters
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.occlusion import occlude
from ss4d.stages.training.recipe import SMOKE
from ss4d.stages.training.show import voxel_picture
from ss4d.stages.training.statistics import fold_scale, occupancy_scale, slat_normalization
from ss4d.stages.training.tiny import SIGMA_MIN

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips() -> list[TrainingClip]:
    spec = ClipSpec(seed=0, num_frames=5, input_size=32, num_views=1, view_size=8, resolution=8)
    return [make_clip(dataclasses.replace(spec, seed=seed)) for seed in (1, 2)]


def network(role: str):
    return fresh_network(role, *SMOKE.networks[role], TORCH_OPS, seed=0)


def structure_flow() -> StructureFlow:
    return StructureFlow(*map(network, (STRUCTURE_FLOW, IMAGE_ENCODER, STRUCTURE_ENCODER, STRUCTURE_DECODER)))


def latents_flow() -> LatentsFlow:
    unit = LatentNormalization(mean=(0.0,) * 8, std=(1.0,) * 8)
    flow, images, encoder, decoder = map(network, (LATENT_FLOW, IMAGE_ENCODER, LATENT_ENCODER, GAUSSIAN_DECODER))
    return LatentsFlow(flow, images, encoder, unit, decoder)


FLOWS = pytest.mark.parametrize("build", [structure_flow, latents_flow])


@FLOWS
def test_a_few_steps_lower_the_loss_on_a_fixed_batch(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    weights = [w for trained in objective.trained().values() for w in trained.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = objective.loss(clips, step_generator(0, "fixed", 0)).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@FLOWS
def test_a_step_is_a_function_of_its_generator(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    for part in objective.trained().values():
        if hasattr(part, "out_layer"):
            torch.nn.init.normal_(part.out_layer.weight)
    first, again, other = (float(objective.loss(clips, step_generator(0, "x", n)).total.detach()) for n in (3, 3, 4))
    assert first == again != other


@FLOWS
def test_half_precision_is_close(build, clips: list[TrainingClip]) -> None:
    """As on a GPU, where products are rounded to bfloat16: no operation may meet two precisions it cannot join."""
    objective: Objective = build()
    exact = objective.loss(clips, step_generator(0, "x", 0)).total
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective.loss(clips, step_generator(0, "x", 0)).total
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


@FLOWS
def test_pictures_are_the_same_twice(build, clips: list[TrainingClip]) -> None:
    objective: Objective = build()
    (first,), (again,) = (objective.pictures(clips[:1]).values() for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (128, 5 * 128, 3)
    assert torch.equal(first, again)


def test_only_what_shall_learn_learns() -> None:
    assert set(structure_flow().trained()) == {STRUCTURE_FLOW}
    assert set(latents_flow().trained()) == {LATENT_FLOW}


def test_the_bridge_leads_back_to_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    for t in (0.0, 0.3, 1.0):
        x, v = bridge(data, noise, torch.tensor(t, dtype=torch.float64))
        assert torch.allclose(clean_estimate(Step(t, x, v, x), SIGMA_MIN), data, atol=1e-9)
    assert torch.allclose(bridge(data, noise, torch.tensor(1.0))[0], noise, atol=1e-5)


def test_flow_times_have_a_normal_logit() -> None:
    logits = torch.logit(random_times(20000, torch.Generator().manual_seed(0)).double())
    assert float(logits.mean()) == pytest.approx(1, abs=0.03)
    assert float(logits.std()) == pytest.approx(1, abs=0.03)


def test_a_tenth_of_the_conditions_is_zero() -> None:
    cond = dropped(torch.ones(5000, 1, 1, 2), torch.Generator().manual_seed(0))
    assert set(cond.unique().tolist()) == {0.0, 1.0}
    assert float(cond.mean()) == pytest.approx(0.9, abs=0.02)


def test_occlusion_hides_parts_of_some_frames() -> None:
    frames = torch.ones(60, 6, 32, 32, 4)
    hidden = 1 - occlude(frames, torch.Generator().manual_seed(0))
    share = hidden[..., 0].mean((2, 3))
    assert torch.equal(hidden[..., 0], hidden[..., 3])  # alpha too: the encoder sees nothing there
    assert 0.1 < float((share > 0).float().mean()) < 0.3
    assert 0.01 < float(share[share > 0].mean()) < 0.3
    assert float(share.max()) < 0.5


def test_tokens_are_those_of_the_pipeline(clips: list[TrainingClip]) -> None:
    from ss4d.stages.conditioning import encode_images
    from ss4d.stages.conditioning_config import ConditioningConfig
    from ss4d.stages.types import Clip

    encoder = network(IMAGE_ENCODER)
    frames = clips[0].frames
    rgb = (frames[..., :3].float() * frames[..., 3:] / 255).round().byte()
    clip = Clip(
        rgb=rgb, alpha=frames[..., 3], crop=torch.zeros(4).long(), confidence=torch.ones(5), method="alpha", fps=12.0
    )
    with torch.no_grad():
        ours = image_tokens(encoder, clips[:1], CPU)[0]
    assert torch.allclose(ours, encode_images(ConditioningConfig(), encoder, clip).feats, atol=0.02)


def test_windows_fit_the_clips(clips: list[TrainingClip]) -> None:
    lengths = set()
    for seed in range(30):
        parts = window(clips, torch.Generator().manual_seed(seed), 2, None, 2)
        assert len({part.num_frames for part in parts}) == 1
        assert len(parts) == max(1, len(clips) * 2 // parts[0].num_frames)  # twice as long, half as many
        lengths.add(parts[0].num_frames)
        grids = occupancy_grids(parts, CPU)
        assert int(grids.sum()) == len(batch_coords(parts))
        wholes = occupancy_grids(clips, CPU)
        assert any(torch.equal(grids[0], wholes[0, s : s + grids.shape[1]]) for s in range(4))
    assert lengths == {2, 4}
    with pytest.raises(InputError, match="longer clips"):
        window(clips, torch.Generator(), 2, None, 8)


def test_folding_the_scale_leaves_the_decoded_as_it_was(clips: list[TrainingClip]) -> None:
    encoder, decoder = network(STRUCTURE_ENCODER), network(STRUCTURE_DECODER)
    torch.nn.init.normal_(encoder.out_layer[2].weight, std=0.3)
    grids = occupancy_grids(clips, CPU).flatten(0, 1)[:, None]
    with torch.no_grad():
        mean, logvar = encoder(grids)
        before = decoder(mean)
        scale = occupancy_scale(encoder, [clips])
        fold_scale(encoder, decoder, scale)
        scaled, scaled_logvar = encoder(grids)
        after = decoder(scaled)
    assert torch.allclose(after, before, atol=1e-4)
    assert torch.allclose(scaled.square().mean((0, 2, 3, 4)), torch.ones(len(scale)), atol=1e-4)
    ratio = scale.log()[:, None, None, None]
    assert torch.allclose(scaled_logvar + 2 * ratio, logvar, atol=1e-4)  # noise is scaled like the mean


def test_normalization_is_of_all_voxels(clips: list[TrainingClip]) -> None:
    flow = latents_flow()
    rows = torch.cat([flow.latents([clip], CPU)[1] for clip in clips])
    measured = slat_normalization(network(LATENT_ENCODER), [clips[:1], clips[1:]])
    assert measured.mean == pytest.approx(rows.mean(0).tolist(), abs=1e-5)
    assert measured.std == pytest.approx(rows.std(0, correction=0).tolist(), abs=1e-5)


def test_adapters_leave_the_weights_and_merge_to_the_same(clips: list[TrainingClip]) -> None:
    objective = structure_flow()
    flow = objective.flow
    for layer in (flow.out_layer, flow.adaLN_modulation[-1]):  # a new flow's are 0, and let nothing through
        torch.nn.init.normal_(layer.weight, std=0.2)
    plain = copy.deepcopy(flow)
    add_adapters(flow, 3)

    def loss() -> torch.Tensor:
        return objective.loss(clips, step_generator(0, "x", 0)).total

    before = loss().detach()
    learned = [weight for weight in flow.parameters() if weight.requires_grad]
    assert sum(map(torch.numel, learned)) < 0.3 * sum(map(torch.numel, plain.parameters()))
    optimizer = torch.optim.AdamW(learned, lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    adapted = loss().detach()
    assert adapted < before
    layer = flow.blocks[0].self_attn.to_qkv
    assert torch.equal(layer.parametrizations.weight.original, plain.blocks[0].self_attn.to_qkv.weight)
    merge_adapters(flow)
    assert torch.allclose(loss().detach(), adapted, rtol=1e-5)
    assert flow.state_dict().keys() == plain.state_dict().keys()
    changed = {name for name, tensor in flow.state_dict().items() if not torch.equal(tensor, plain.state_dict()[name])}
    assert "blocks.0.self_attn.to_qkv.weight" in changed
    assert all(name.startswith("blocks.") and name.endswith(".weight") for name in changed)


def test_what_has_no_blocks_takes_no_adapters() -> None:
    with pytest.raises(InputError, match="SparseStructureDecoder"):
        add_adapters(network(STRUCTURE_DECODER), 2)


def test_near_voxels_are_lighter() -> None:
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[0, 1, 3] = grid[2, 3, 0] = True  # near the front on the left at the top; far on the right at the bottom
    front, side = (voxel_picture(grid, name, 4)[..., 0] for name in ("front", "side"))
    assert front[0, 0] > front[3, 2]
    assert side[3, 3] > side[0, 1]  # from +x, y runs to the right, and x = 2 is nearer
    assert int((front < 255).sum()) == int((side < 255).sum()) == 2
