"""Both autoencoders: a few steps on one clip lower the loss, a step can be repeated, pictures match their targets."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ss4d.stages.data.clip import ClipSpec, TrainingClip, make_clip
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder, SLatGaussianDecoderArgs
from ss4d.stages.nn.latent_encoder import SLatEncoder, SLatEncoderArgs
from ss4d.stages.nn.occupancy import (
    SparseStructureDecoder,
    SparseStructureDecoderArgs,
    SparseStructureEncoder,
    SparseStructureEncoderArgs,
)
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_ENCODER
from ss4d.stages.training.appearance import (
    START_SCALE,
    AppearanceAutoencoder,
    AppearanceSettings,
    Choice,
    backgrounds,
    over,
    start_decoder,
    start_encoder,
)
from ss4d.stages.training.objective import Objective
from ss4d.stages.training.occupancy import OccupancyAutoencoder, OccupancySettings
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED

SIZE = {"resolution": 12, "model_channels": 32, "num_blocks": 2, "num_heads": 2, "window_size": 4}


def generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(step)


@pytest.fixture(scope="module")
def clip() -> TrainingClip:
    return make_clip(
        ClipSpec(seed=2, num_frames=3, input_size=16, num_views=4, view_size=32, resolution=SIZE["resolution"])
    )


@pytest.fixture
def appearance() -> AppearanceAutoencoder:
    torch.manual_seed(0)
    encoder = SLatEncoder(SLatEncoderArgs(**{**ENCODERS[LATENT_ENCODER][1], **SIZE}), TORCH_OPS)
    decoder = SLatGaussianDecoder(SLatGaussianDecoderArgs(**{**PUBLISHED[GAUSSIAN_DECODER][1], **SIZE}), TORCH_OPS)
    start_encoder(encoder)
    start_decoder(decoder)
    return AppearanceAutoencoder(encoder, decoder, AppearanceSettings(num_frames=2, num_views=2))


@pytest.fixture
def occupancy() -> OccupancyAutoencoder:
    torch.manual_seed(0)
    sizes = {"latent_channels": 4, "num_res_blocks": 1, "num_res_blocks_middle": 1}
    encoder = SparseStructureEncoder(SparseStructureEncoderArgs(in_channels=1, channels=(8, 16), **sizes))
    decoder = SparseStructureDecoder(SparseStructureDecoderArgs(out_channels=1, channels=(16, 8), **sizes))
    return OccupancyAutoencoder(encoder, decoder, OccupancySettings(num_frames=2))


def descend(objective: Objective, clip: TrainingClip, steps: int) -> list[dict[str, float]]:
    """What plain Adam measures at each step."""
    weights = [weight for network in objective.trained().values() for weight in network.parameters()]
    optimizer, measured = torch.optim.Adam(weights, lr=3e-3), []
    for step in range(steps):
        losses = objective.loss([clip], generator(step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        measured.append({"loss": losses.total.item()} | {name: part.item() for name, part in losses.parts.items()})
    return measured


def mean(measured: list[dict[str, float]], name: str) -> float:
    return sum(one[name] for one in measured) / len(measured)


def test_appearance_is_learned(appearance: AppearanceAutoencoder, clip: TrainingClip) -> None:
    measured = descend(appearance, clip, 40)
    before, after = measured[:5], measured[-5:]
    assert mean(after, "loss") < 0.6 * mean(before, "loss")
    assert mean(after, "psnr") > mean(before, "psnr") + 3


def test_occupancy_is_learned(occupancy: OccupancyAutoencoder, clip: TrainingClip) -> None:
    measured = descend(occupancy, clip, 50)
    before, after = measured[:5], measured[-5:]
    assert mean(after, "loss") < 0.5 * mean(before, "loss")
    assert mean(after, "iou") > 0.5


@pytest.mark.parametrize("name", ["appearance", "occupancy"])
def test_a_step_depends_on_its_generator_alone(name: str, request: pytest.FixtureRequest, clip: TrainingClip) -> None:
    objective: Objective = request.getfixturevalue(name)
    torch.manual_seed(5)
    first = objective.loss([clip, clip], generator(1))
    torch.manual_seed(6)
    again, other = objective.loss([clip, clip], generator(1)), objective.loss([clip, clip], generator(2))
    assert torch.equal(first.total, again.total)
    assert not torch.equal(first.total, other.total)


@pytest.mark.parametrize("name", ["appearance", "occupancy"])
def test_every_weight_of_both_networks_hears_of_the_loss(
    name: str, request: pytest.FixtureRequest, clip: TrainingClip
) -> None:
    objective: Objective = request.getfixturevalue(name)
    objective.loss([clip], generator(0)).total.backward()
    for role, network in objective.trained().items():
        for weight, parameter in network.named_parameters():
            assert parameter.grad is not None, (role, weight)
            assert parameter.grad.isfinite().all(), (role, weight)
            assert parameter.grad.abs().max() > 0, (role, weight)


@pytest.mark.parametrize("name", ["appearance", "occupancy"])
def test_pictures_are_the_same_each_time(name: str, request: pytest.FixtureRequest, clip: TrainingClip) -> None:
    objective: Objective = request.getfixturevalue(name)
    first, again = objective.pictures([clip, clip]), objective.pictures([clip, clip])
    for key, picture in first.items():
        assert picture.dtype == torch.uint8
        assert picture.ndim == 3
        assert picture.float().std() > 1
        assert torch.equal(picture, again[key])
        top, bottom = picture.chunk(2)
        assert torch.equal(top, bottom)


def test_a_clip_alone_gives_what_it_gives_among_others(appearance: AppearanceAutoencoder, clip: TrainingClip) -> None:
    """Voxels, cameras and pictures of several clips, of which one has an empty frame, stay with their clip."""
    hollow = replace(clip, coords=clip.coords[clip.coords[:, 1] != 1], feats=clip.feats[clip.coords[:, 1] != 1])
    choices = [appearance.choose(one, generator(n)) for n, one in enumerate((clip, hollow, clip))]
    colors = backgrounds(choices, generator(0))

    def pictures(chosen: list, colors: Tensor) -> tuple[Tensor, Tensor]:
        scene = appearance.scene(chosen, colors)
        with torch.no_grad():
            images, _ = appearance._draw(scene, appearance._decode(scene, appearance._encode(chosen, scene)[0]))
        return images, over(scene.targets, scene.views.backgrounds)

    together = pictures(choices, colors)
    for n, choice in enumerate(choices):
        alone = pictures([choice], colors[4 * n : 4 * n + 4])
        for one, all_of_them in zip(alone, together, strict=True):
            assert_close(one, all_of_them[4 * n : 4 * n + 4], atol=1e-4, rtol=0)


def test_targets_are_the_chosen_views_of_the_chosen_frames(
    appearance: AppearanceAutoencoder, clip: TrainingClip
) -> None:
    choice = appearance.choose(clip, generator(3))
    scene = appearance.scene([choice], torch.zeros(4, 3))
    for k in range(4):
        frame, view = k // 2, int(choice.views[k // 2, k % 2])
        assert torch.equal(scene.targets[k], clip.views[view, choice.start + frame] / 255)
        assert torch.equal(scene.views.world_to_camera[k], clip.view_cameras[view])
        assert int(scene.views.frames[k]) == frame
    assert scene.sites.coords[:, 1].unique().tolist() == [choice.start, choice.start + 1]


def test_new_networks_start_as_described(appearance: AppearanceAutoencoder, clip: TrainingClip) -> None:
    choices = [appearance.choose(clip, generator(0))]
    scene = appearance.scene(choices, torch.zeros(4, 3))
    _, logvar = appearance._encode(choices, scene)
    gaussians = appearance._decode(scene, torch.randn(len(logvar), 8, generator=generator(1)))
    assert_close(gaussians.scales.mean() * SIZE["resolution"], torch.tensor(START_SCALE), atol=0.05, rtol=0)
    assert_close(gaussians.colors, torch.full_like(gaussians.colors, 0.5), atol=0.25, rtol=0)
    assert_close(logvar, torch.full_like(logvar, -4), atol=0.3, rtol=0)


def symmetric(cells: Tensor) -> set[bytes]:
    """A grid turned and mirrored in the eight ways that keep it upright."""
    turned = [torch.rot90(cells, turn, (0, 1)) for turn in range(4)]
    return {c.contiguous().numpy().tobytes() for grid in turned for c in (grid, grid.flip(0))}


def test_grids_are_turned_and_mirrored_but_stay_upright(occupancy: OccupancyAutoencoder, clip: TrainingClip) -> None:
    frames = [torch.zeros(3 * [SIZE["resolution"]]) for _ in range(clip.num_frames)]
    for _, t, x, y, z in clip.coords.tolist():
        frames[t][x, y, z] = 1
    allowed = set.union(*(symmetric(frame) for frame in frames))
    drawn = [occupancy._chosen(clip, generator(step)) for step in range(40)]
    assert {grid.contiguous().numpy().tobytes() for grids in drawn for grid in grids} == allowed


def test_backgrounds_are_black_white_and_colored(clip: TrainingClip) -> None:
    views = torch.arange(1500).expand(2, -1)
    colors = backgrounds([Choice(clip, 0, views), Choice(clip, 0, views)], generator(0))

    def share(value: float) -> float:
        return (colors == value).all(1).float().mean().item()

    assert share(0.0) == pytest.approx(1 / 3, abs=0.05)
    assert share(1.0) == pytest.approx(1 / 3, abs=0.05)
    assert colors.min() >= 0
    assert colors.max() <= 1


def test_pictures_that_follow_each_other_show_the_same_view_over_the_same_color(
    appearance: AppearanceAutoencoder, clip: TrainingClip
) -> None:
    choices = [appearance.choose(clip, generator(n)) for n in range(3)]
    scene = appearance.scene(choices, backgrounds(choices, generator(0)))
    frames = appearance.settings.num_frames
    assert scene.followed.shape == (2, 3 * (frames - 1) * appearance.settings.num_views)
    for earlier, later in scene.followed.T.tolist():
        assert int(scene.views.frames[later]) == int(scene.views.frames[earlier]) + 1
        assert torch.equal(scene.views.world_to_camera[later], scene.views.world_to_camera[earlier])
        assert torch.equal(scene.views.backgrounds[later], scene.views.backgrounds[earlier])
    alone = Choice(clip, 0, torch.tensor([[0, 1], [1, 0]]))
    assert alone.followed.numel() == 0
