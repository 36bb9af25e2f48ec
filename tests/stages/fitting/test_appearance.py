"""The appearance fit gains from where nobody looked, and leaves alone what it cannot make better."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ss4d.stages.data.clip import SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import InputError
from ss4d.stages.evaluation.baselines import truth_answer
from ss4d.stages.evaluation.metrics import iou, psnr
from ss4d.stages.evaluation.views import input_camera, input_clip, over_white, pictures
from ss4d.stages.fitting.appearance import KNOWN, Limits, Scene, Shown, better, fit_latents_seen, fit_seen
from ss4d.stages.fitting.config import AppearanceFitConfig, LatentFitConfig
from ss4d.stages.fitting.descent import Aim, Piece, grain, halved, mended
from ss4d.stages.fitting.gaussians import GaussianStart
from ss4d.stages.fitting.groups import grouped
from ss4d.stages.fitting.hull import within_masks
from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.geometry import rotate_gaussians
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.roles import GAUSSIAN_DECODER
from ss4d.stages.training.tiny import PUBLISHED
from ss4d.stages.types import Clip, GaussianClip, StructuredLatents
from tests.helpers.pretend_device import PretendDevice

QUICK = AppearanceFitConfig(steps=15, size=96)
ARRAYS = ("means", "scales", "quats", "colors", "opacities", "offsets")


@cache
def clip(family: str) -> TrainingClip:
    return make_clip(
        ClipSpec(seed=2, family=family, num_frames=2, input_size=96, num_views=6, view_size=64, resolution=16)
    )


def dull(truth: TrainingClip) -> GaussianClip:
    """The true shape, as a model without an idea of colors would make it."""
    asset = truth_answer(truth).gaussians
    return replace(asset, colors=asset.colors.mean(0).expand_as(asset.colors).contiguous())


def novel_psnr(truth: TrainingClip, asset: GaussianClip) -> torch.Tensor:
    cameras = [truth.view_camera(view) for view in range(len(truth.views))]
    images = torch.stack([pictures(asset, camera, rasterize) for camera in cameras])
    return psnr(images, over_white(truth.views)).mean(1)


def turned(truth: TrainingClip, degrees: float) -> TrainingClip:
    """The clip with an input camera that far round the object from the true one."""
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.eye(4)
    turn[0, 0] = turn[1, 1] = angle.cos()
    turn[0, 1], turn[1, 0] = -angle.sin(), angle.sin()
    return replace(truth, input_camera=truth.input_camera @ turn)


def fit(truth: TrainingClip, asset: GaussianClip, seen: Clip, config: AppearanceFitConfig = QUICK):  # type: ignore[no-untyped-def]
    return fit_seen(config, asset, scene(truth, seen))


def scene(truth: TrainingClip, seen: Clip, device: str = "cpu") -> Scene:
    return Scene(clip=seen, camera=input_camera(truth, SOURCE_SIZE), yaw=truth.yaw, device=torch.device(device))


def test_with_the_true_camera_other_views_gain_too() -> None:
    truth = clip("walker")
    before = dull(truth)
    after = fit(truth, before, input_clip(truth), AppearanceFitConfig(steps=15))
    assert after.fitted.tolist() == [1, 1]
    assert after.loss[-1] < 0.65 * after.loss[0]
    gain = novel_psnr(truth, after) - novel_psnr(truth, before)
    assert gain.mean() > 0.5
    assert gain.min() > -0.6, "no side is ruined"


def test_the_same_bits_again() -> None:
    truth = clip("walker")
    first, second = (fit(truth, dull(truth), input_clip(truth)) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in (*ARRAYS, "loss", "fitted"))


def test_no_gradient_is_added_up_in_an_order_that_depends_on_the_load() -> None:
    # On a CPU, several threads add to the gradient of an indexed tensor at once; bits differ when they are kept busy.
    truth = clip("walker")
    before = decode_gaussians(DecodingConfig(), decoder(), latents(truth))
    config = LatentFitConfig(latent_steps=1, steps=1, size=32)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        fit_latents_seen(config, decoder(), latents(truth), before, scene(truth, input_clip(truth)))
    names = {event.key for event in watched.key_averages()}
    assert "IndexSelectBackward0" in names
    assert "IndexBackward0" not in names


@pytest.mark.parametrize("wrong", ["camera", "masks"])
def test_what_does_not_get_better_is_left_as_it_was(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    truth = clip("walker")
    before = dull(truth)
    seen = input_clip(clip("snake") if wrong == "masks" else truth)
    with caplog.at_level("INFO", logger="ss4d"):
        after = fit(turned(truth, 90.0) if wrong == "camera" else truth, before, seen)
    assert after.fitted.tolist() == [0, 0]
    assert all(torch.equal(getattr(after, name), getattr(before, name)) for name in ARRAYS)
    assert "came out no better" in caplog.text


def test_what_looks_right_from_a_camera_in_doubt_alone_is_not_better() -> None:
    truth = clip("spinner")  # its outline is much the same all round
    right = truth_answer(truth).gaussians
    angle = math.radians(40)
    back = torch.tensor([math.cos(angle / 2), 0.0, 0.0, -math.sin(angle / 2)], dtype=torch.float64)
    along = rotate_gaussians(right, back)  # as far round as the wrong camera
    wrong, true = (scene(whose, input_clip(truth)) for whose in (turned(truth, 40.0), truth))
    assert better(right, along, wrong, QUICK).tolist() == [True, True]
    assert better(right, along, replace(wrong, doubts=[true.camera]), QUICK).tolist() == [False, False]


def test_one_bad_frame_is_left_alone() -> None:
    truth = make_clip(
        ClipSpec(seed=2, family="walker", num_frames=3, input_size=96, num_views=1, view_size=16, resolution=16)
    )
    seen, other = input_clip(truth), input_clip(clip("snake"))
    mixed = replace(
        seen,
        rgb=torch.cat([seen.rgb[:1], other.rgb[:1], seen.rgb[2:]]),
        alpha=torch.cat([seen.alpha[:1], other.alpha[:1], seen.alpha[2:]]),
    )
    before = dull(truth)
    after = fit(truth, before, mixed)
    assert after.fitted.tolist() == [1, 0, 1]
    assert torch.equal(after.frame(1).colors, before.frame(1).colors)
    assert not torch.equal(after.frame(2).colors, before.frame(2).colors)


@pytest.mark.parametrize(("beyond", "kept"), [(-0.01, [1, 1, 1]), (0.1, [1, 1, 1]), (0.2, [1, 0, 1])])
def test_a_frame_that_falls_a_little_short_is_kept_beside_others(beyond: float, kept: list[int]) -> None:
    truth = make_clip(
        ClipSpec(seed=2, family="walker", num_frames=3, input_size=96, num_views=1, view_size=16, resolution=16)
    )
    before, seen = dull(truth), scene(truth, input_clip(truth))
    after = fit_seen(QUICK, before, seen)
    first, stop = before.offsets[1:3].tolist()
    eye = torch.tensor(seen.camera.world_to_camera).inverse()[:3, 3]
    after.means[first:stop] += 0.04 * (after.means[first:stop] - eye)  # the second frame, further off: alike in front
    half = halved(QUICK.size)
    old, new = (Shown.of(asset, 1, seen, half, half).sides[..., 3] > 0.5 for asset in (before, after))
    limits = Limits(overlap=0.3, likeness=float(iou(old, new).mean()) + beyond)
    assert limits.likeness < 0.88, "the others are within the limits"
    assert better(before, after, replace(seen, limits=limits), QUICK).tolist() == kept


@cache
def decoder() -> SLatGaussianDecoder:
    torch.manual_seed(1)
    args = dict(PUBLISHED[GAUSSIAN_DECODER][1], model_channels=16, num_blocks=1, num_heads=2, num_head_channels=8)
    network = build_network("SLatGaussianDecoder", args, TORCH_OPS).eval()
    torch.nn.init.normal_(network.out_layer.weight, std=0.05)
    return network


def latents(truth: TrainingClip) -> StructuredLatents:
    draw = torch.Generator().manual_seed(3)
    return StructuredLatents(
        coords=truth.coords,
        feats=torch.randn(len(truth.coords), 8, generator=draw),
        num_frames=truth.num_frames,
        resolution=truth.resolution,
    )


def test_latents_are_fitted_through_the_decoder_and_then_gaussians() -> None:
    truth = clip("walker")
    before = decode_gaussians(DecodingConfig(), decoder(), latents(truth))
    seen = scene(truth, input_clip(truth))
    free = {"others": 0.0, "latent_stay": 0.0, "latent_temporal": 0.0, "latent_spatial": 0.0}
    config = LatentFitConfig(latent_steps=6, latent_rate=0.03, steps=3, size=64, **free)
    told: list[tuple[int, int]] = []
    first = fit_latents_seen(
        config, decoder(), latents(truth), before, seen, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(step, 9) for step in range(1, 10)]
    assert len(first.loss) == 9
    assert first.loss[2] < first.loss[0], "both over black, and both coarse"
    again = fit_latents_seen(config, decoder(), latents(truth), before, seen)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in (*ARRAYS, "loss", "fitted"))
    assert all(weight.grad is None for weight in decoder().parameters())


def test_latents_must_be_those_of_the_gaussians() -> None:
    truth = clip("walker")
    with pytest.raises(InputError, match=r"latents needs decoding.method=gaussians"):
        fit_latents_seen(LatentFitConfig(), decoder(), latents(truth), dull(truth), scene(truth, input_clip(truth)))


def test_an_empty_frame_stays_empty() -> None:
    truth = clip("walker")
    whole = dull(truth)
    frame = whole.frame(0)
    gap = replace(frame, offsets=torch.tensor([0, len(frame.means), len(frame.means)]))
    after = fit(truth, gap, input_clip(truth), AppearanceFitConfig(steps=2, size=32))
    assert after.offsets.tolist() == gap.offsets.tolist()
    assert after.fitted[1] == 0


def test_a_clip_without_gaussians_stays() -> None:
    truth = clip("walker")
    whole = dull(truth)
    empty = replace(whole, **{name: getattr(whole, name)[:0] for name in ARRAYS[:5]}, offsets=torch.zeros(3).long())
    after = fit(truth, empty, input_clip(truth), AppearanceFitConfig(steps=2, size=32))
    assert len(after.means) == 0
    assert after.fitted.tolist() == [0, 0]


def test_what_needs_no_gradients_leaves_nothing_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_hidden(asset: GaussianClip, *_: object) -> torch.Tensor:
        return torch.zeros(len(asset.means), dtype=torch.bool)

    monkeypatch.setattr("ss4d.stages.fitting.appearance.hidden_from", none_hidden)  # that takes gradients
    truth = clip("walker")
    still = AppearanceFitConfig(steps=0, size=32)
    with PretendDevice(values=True):
        after = fit_seen(still, dull(truth), scene(truth, input_clip(truth), "cuda:0"))
    assert torch.equal(after.means, dull(truth).means)


def test_groups_join_what_is_near_in_space_and_time() -> None:
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(400, 3, generator=draw) - 0.5
    groups = grouped(torch.cat([points, points[:300]]), torch.tensor([0, 400, 700]))
    members = torch.unique(groups.member, return_counts=True)[1]
    assert torch.equal(members, groups.counts[:, 0].long())
    assert members.float().mean() <= 4
    first, second = groups.member[:300], groups.member[400:]
    pairs = {(a, b) for a, b in groups.later.T.tolist()}
    assert {(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)} <= pairs
    alike = torch.ones(700, 2)
    assert [float(term) for term in groups.unevenness(alike)] == pytest.approx([0, 0])
    apart, change = groups.unevenness(torch.cat([alike[:400], 2 * alike[400:]]))
    assert float(apart) == pytest.approx(0)
    assert float(change) == pytest.approx(2)


def test_a_known_camera_asks_less_of_the_shape() -> None:
    truth = clip("walker")
    thin = dull(truth)
    thin = replace(thin, opacities=torch.where(thin.means[:, 2] > 0, thin.opacities, 0.0))  # the model missed the legs
    seen = scene(truth, input_clip(truth))
    assert fit_seen(QUICK, thin, seen).fitted.tolist() == [0, 0]
    assert fit_seen(QUICK, thin, replace(seen, limits=KNOWN)).fitted.tolist() == [1, 1]
    other = scene(truth, input_clip(clip("bird")))
    assert fit_seen(QUICK, dull(truth), replace(other, limits=KNOWN)).fitted.tolist() == [0, 0]


def test_what_shows_beside_the_object_fades_away() -> None:
    truth = clip("walker")
    asset, camera = dull(truth), input_camera(truth, SOURCE_SIZE)
    masks = truth.frames[..., 3].float() / 255
    assert torch.equal(within_masks(asset, masks, camera).opacities, asset.opacities)
    beside = asset.means.clone()
    beside[::10] += torch.tensor([0.0, 0.0, 0.9])  # above the walker, or beyond the picture
    left = within_masks(replace(asset, means=beside), masks, camera).opacities
    gone = left != asset.opacities
    assert 0 < gone.sum() <= len(left[::10])
    assert not gone[torch.arange(len(left)) % 10 > 0].any()
    assert torch.equal(within_masks(asset, torch.zeros_like(masks), camera).opacities, asset.opacities)


def test_nothing_is_too_small_for_the_pictures_compared() -> None:
    """What hardly shows in them would be painted at random, and be specks in larger ones; its light face on stays."""
    truth = clip("walker")
    asset, seen = dull(truth), scene(truth, input_clip(truth))
    small = torch.arange(len(asset.means)) % 3 == 0
    dotted = replace(asset, scales=torch.where(small[:, None], 1e-3, asset.scales))
    pixel = seen.pixel(QUICK.size)
    assert 0.005 < pixel < 0.05, "of 96 pixels that show an object of side 1, and some room around it"
    start = GaussianStart.of(dotted, QUICK.reach, pixel, torch.device("cpu"))
    whole = Piece(slice(0, 2), slice(0, len(asset.means)))
    same, _ = start.moved(torch.zeros(len(asset.means), start.channels), whole)
    assert same.scales.min() >= 0.5 * pixel
    light = [
        opacity * scales.sort(dim=1).values[:, 1:].prod(1)
        for opacity, scales in ((dotted.opacities, dotted.scales), (same.opacities[:, 0], same.scales))
    ]
    torch.testing.assert_close(light[1], light[0])
    assert fit(truth, dotted, input_clip(truth)).scales.min() >= 0.5 * pixel


def test_other_sides_are_compared_in_pictures_of_full_size() -> None:
    """In smaller ones specks and nets blur into what is around them, and cost nothing."""
    truth = clip("walker")
    seen = scene(truth, input_clip(truth))
    start = GaussianStart.of(dull(truth), QUICK.reach, seen.pixel(QUICK.size), torch.device("cpu"))
    aim = Aim.of(start, seen.pictures(QUICK.size), seen.camera, seen.yaw)
    assert {(view.width, view.height) for view in aim.others} == {(QUICK.size, QUICK.size)}
    assert {tuple(piece.shape) for side in aim.before for piece in side} == {(2, QUICK.size, QUICK.size, 4)}
    assert aim.coarse.shape[1] == halved(QUICK.size), "in front alone"


def colored(alpha: torch.Tensor) -> torch.Tensor:
    """Pictures of these alphas (k, s, s) in one color."""
    return torch.stack([0.2 * alpha, 0.4 * alpha, alpha, alpha], dim=-1)


def test_sides_are_asked_to_be_crisp() -> None:
    alpha = torch.tensor([0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
    got = mended(colored(alpha[:, None, None].expand(-1, 16, 16)))[:, 8, 8]  # even all around
    assert got[:, 3].tolist() == pytest.approx([0, 0, 0.074, 0.5, 0.926, 1, 1], abs=1e-3)
    seen = got[2:]
    assert torch.allclose(seen[:, :3] / seen[:, 3:], torch.tensor([0.2, 0.4, 1.0]))


def test_sides_are_asked_for_surfaces_where_there_are_nets_and_for_nothing_where_there_are_dots() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    net = 1.0 - ((rows % 3 == 0) & (columns % 3 == 0)).float()
    dots = ((rows % 4 == 0) & (columns % 4 == 0)).float()
    inside = (slice(None), slice(6, 26), slice(6, 26))
    surface, nothing = mended(colored(torch.stack([net, dots])))[inside]
    assert surface[..., 3].min() > 0.97
    assert nothing[..., 3].max() < 0.03
    assert torch.allclose(surface[..., :3] / surface[..., 3:], torch.tensor([0.2, 0.4, 1.0]), atol=1e-5)


def test_grain_is_what_colors_have_and_not_what_shows_of_them() -> None:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    inside = ((rows > 7) & (rows < 24) & (columns > 7) & (columns < 24)).float()
    even = colored(inside[None])
    assert grain(even) < 1e-6
    slope = (rows / 32 * inside)[None, ..., None]
    specks = ((rows % 5 == 0) & (columns % 5 == 0)).float()[None, ..., None]
    assert grain(even * torch.cat([slope.expand(-1, -1, -1, 3), torch.ones_like(slope)], -1)) < 0.005
    dotted = even.clone()
    dotted[..., :3] *= 1 - specks
    assert grain(dotted) > 0.005


def test_grain_pulls_at_colors_alone() -> None:
    pictures = colored(torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)))
    pictures[..., :3] *= torch.rand(1, 32, 32, 1, generator=torch.Generator().manual_seed(1))
    pictures.requires_grad_()
    grain(pictures).backward()  # type: ignore[no-untyped-call]
    assert pictures.grad is not None
    assert pictures.grad[..., :3].abs().sum() > 0
    assert (pictures.grad[..., 3] == 0).all()
