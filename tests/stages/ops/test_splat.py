"""The differentiable rasterizer: its pictures against the one that reads plainly, its gradients against autograd."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ss4d.stages.ops import rasterize_reference, splat_sorted
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import CLASSIC, MIP_SPLATTING, ScreenFilter, rasterize
from ss4d.stages.ops.rasterize_torch import torch_rasterizer
from ss4d.stages.ops.splat import Draw, Gaussians, Views, splat
from ss4d.stages.ops.splat_loops import draw_in_loops
from ss4d.stages.ops.splat_sorted import draw_sorted
from ss4d.stages.types import Camera, GaussianClip
from tests.stages.ops.test_rasterize import scene

PARTS = ("means", "scales", "quats", "colors", "opacities")


DRAWS = [draw_in_loops, draw_sorted]


@pytest.fixture(params=DRAWS, ids=["loops", "sorted"])
def draw(request: pytest.FixtureRequest) -> Draw:
    """Both ways to draw, whichever the device would choose."""
    way: Draw = request.param
    return way


def parts_of(clip: GaussianClip) -> dict[str, Tensor]:
    return {name: getattr(clip, name) for name in PARTS[:4]} | {"opacities": clip.opacities[:, None]}


def clip_of(*frames: GaussianClip) -> tuple[Gaussians, Tensor]:
    """Several frames packed, and where each begins."""
    parts = [parts_of(frame) for frame in frames]
    offsets = torch.tensor([0, *(len(part["means"]) for part in parts)]).cumsum(0)
    return Gaussians(**{name: torch.cat([part[name] for part in parts]) for name in PARTS}), offsets


def views_of(cameras: list[Camera], frames: list[int], backgrounds: Tensor) -> Views:
    return Views(
        frames=torch.tensor(frames),
        world_to_camera=torch.tensor([camera.world_to_camera for camera in cameras]),
        focals=torch.tensor([camera.focal for camera in cameras]),
        backgrounds=backgrounds,
        height=cameras[0].height,
        width=cameras[0].width,
    )


def dense(parts: dict[str, Tensor], camera: Camera, background: Tensor, screen_filter: ScreenFilter) -> Tensor:
    """RGB and alpha (h, w, 4) by autograd alone: the reference's arithmetic, with gradients to every part."""
    clip = GaussianClip.__new__(GaussianClip)  # float64 parts, which a clip of the pipeline refuses
    values = parts | {"opacities": parts["opacities"].squeeze(1), "offsets": torch.tensor([0, len(parts["means"])])}
    for name, value in values.items():
        object.__setattr__(clip, name, value)
    rgb, alpha = rasterize_reference.rasterize(clip, camera, screen_filter=screen_filter)
    return torch.cat([rgb + (1 - alpha)[..., None] * background, alpha[..., None]], dim=-1)


@pytest.mark.parametrize("screen_filter", [MIP_SPLATTING, CLASSIC], ids=["mip", "classic"])
@pytest.mark.parametrize("scale", [0.001, 0.03, 0.5], ids=["tiny", "medium", "huge"])
def test_pictures_agree_with_the_reference(scale: float, screen_filter: ScreenFilter, draw: Draw) -> None:
    """Frames of different sizes, one seen twice and one empty, in another order than they lie."""
    frames = [scene(200, 1, scale=scale), scene(0, 0), scene(300, 2, scale=scale)]
    cameras = [orbit_camera(yaw, 20, size=45, radius=radius) for yaw, radius in ((30, 2), (100, 0.3), (200, 2), (5, 2))]
    shown, backgrounds = [2, 2, 1, 0], torch.tensor([[0.2, 0.5, 0.9], [1, 1, 1], [0, 0.5, 0], [0, 0, 0]])
    rgb, alpha = splat(*clip_of(*frames), views_of(cameras, shown, backgrounds), draw, screen_filter=screen_filter)
    for k, (frame, camera) in enumerate(zip(shown, cameras, strict=True)):
        paint = tuple(backgrounds[k].tolist())
        expected = rasterize_reference.rasterize(frames[frame], camera, background=paint, screen_filter=screen_filter)
        for got, wanted in zip((rgb[k], alpha[k]), expected, strict=True):
            error = (got - wanted).abs()
            assert error.max() < 5e-3
            assert error.mean() < 2e-5


def test_needles_keep_their_digits(draw: Draw) -> None:
    needles = torch.tensor([0.5, 0.0005, 0.0005]).expand(60, 3).clone()
    frame, camera = replace(scene(60, 8), scales=needles), orbit_camera(30, 20, size=150)
    rgb, _ = splat(*clip_of(frame), views_of([camera], [0], torch.zeros(1, 3)), draw)
    error = (rgb[0] - rasterize_reference.rasterize(frame, camera)[0]).abs()
    assert error.max() < 5e-3
    assert error.mean() < 2e-5


@pytest.mark.parametrize("seed", range(3))
def test_gradients_agree_with_autograd_through_the_reference(seed: int, draw: Draw) -> None:
    """In float64, on opaque and faint Gaussians, some capped, some behind finished pixels, colors partly negative."""
    frame = scene(40, seed, scale=0.08)
    frame = replace(frame, opacities=frame.opacities.where(torch.arange(40) % 3 > 0, 0.999))
    camera, background = orbit_camera(30, 20, size=24), torch.tensor([[0.2, 0.5, 0.9]])
    parts = {name: part.double().requires_grad_() for name, part in parts_of(frame).items()}
    rgb, alpha = splat(Gaussians(**parts), torch.tensor([0, 40]), views_of([camera], [0], background), draw)
    expected = dense(parts, camera, background[0].double(), MIP_SPLATTING)
    assert_close(rgb[0], expected[..., :3], atol=1e-5, rtol=0)  # the focal length is rounded to float32
    pull = torch.randn(24, 24, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = torch.autograd.grad((rgb[0] * pull[..., :3]).sum() + (alpha[0] * pull[..., 3]).sum(), list(parts.values()))
    wanted = torch.autograd.grad((expected * pull).sum(), list(parts.values()))
    for name, g, w in zip(PARTS, got, wanted, strict=True):
        assert w.abs().max() > 0.1, name
        assert (g - w).abs().max() < 1e-4 * w.abs().max(), name


def test_gradients_agree_with_differences(draw: Draw) -> None:
    """Where no Gaussian crosses a threshold: broad and faint ones."""
    frame = scene(6, 4, spread=0.1)
    frame = replace(frame, scales=frame.scales.clamp(0.15, 0.3), opacities=torch.full((6,), 0.5))
    views = views_of([orbit_camera(30, 20, size=8), orbit_camera(150, -10, size=8)], [0, 0], torch.ones(2, 3))
    inputs = [part.double().requires_grad_() for part in parts_of(frame).values()]
    inputs[3].data.clamp_(min=0.1)

    def pictures(*parts: Tensor) -> tuple[Tensor, Tensor]:
        return splat(Gaussians(**dict(zip(PARTS, parts, strict=True))), torch.tensor([0, 6]), views, draw)

    assert torch.autograd.gradcheck(pictures, inputs, eps=1e-6, atol=1e-6)


def test_drawing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch, draw: Draw) -> None:
    frames = [scene(100, 1), scene(0, 0), scene(150, 2)]
    cameras = [orbit_camera(yaw, 20, size=32) for yaw in (0, 50, 100, 200)]
    views = views_of(cameras, [0, 2, 1, 2], torch.rand(4, 3, generator=torch.Generator().manual_seed(0)))
    results = []
    for limit in (2**24, 3000, 1):
        monkeypatch.setattr(splat_sorted, "MAX_PAIRS", limit)
        gaussians, offsets = clip_of(*frames)
        parts = [getattr(gaussians, name).requires_grad_() for name in PARTS]
        rgb, alpha = splat(gaussians, offsets, views, draw)
        results.append((rgb, alpha, *torch.autograd.grad(rgb.square().sum() + alpha.sum(), parts)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_nothing_to_see_is_background(draw: Draw) -> None:
    behind = replace(scene(5, 0), means=torch.tensor([0.0, 0.0, 9.0]).expand(5, 3).clone())
    for frame in (scene(0, 0), behind):
        gaussians, offsets = clip_of(frame)
        parts = [getattr(gaussians, name).requires_grad_() for name in PARTS]
        rgb, alpha = splat(
            gaussians, offsets, views_of([orbit_camera(0, 90, size=16)], [0], torch.full((1, 3), 0.3)), draw
        )
        assert_close(rgb, torch.full_like(rgb, 0.3))
        assert alpha.abs().max() == 0
        (rgb.sum() + alpha.sum()).backward()
        assert all(part.grad is None or part.grad.abs().sum() == 0 for part in parts)


def test_gradients_are_finite_on_degenerate_gaussians(draw: Draw) -> None:
    """Flat ones seen edge-on, points, and ones seen from inside."""
    frame = scene(90, 5)
    scales = frame.scales.clone()
    scales[:30, 0], scales[30:60] = 0, 0
    scales[60:] = 2
    gaussians, offsets = clip_of(replace(frame, scales=scales, quats=torch.tensor([[1.0, 0, 0, 0]]).expand(90, 4)))
    parts = [getattr(gaussians, name).requires_grad_() for name in PARTS]
    rgb, _ = splat(gaussians, offsets, views_of([orbit_camera(90, 0, size=32)], [0], torch.zeros(1, 3)), draw)
    for part in torch.autograd.grad(rgb.square().sum(), parts):
        assert part.isfinite().all()


def test_autocast_does_not_blur_it(draw: Draw) -> None:
    views = views_of([orbit_camera(90, 0, size=32)], [0], torch.zeros(1, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = splat(*clip_of(scene(50, 1)), views, draw)
    for one, two in zip(inside, splat(*clip_of(scene(50, 1)), views, draw), strict=True):
        assert torch.equal(one, two)


def test_one_frame_is_drawn_as_by_any_other_rasterizer(draw: Draw) -> None:
    """A picture that is not square, and one of nothing."""
    render = torch_rasterizer(torch.device("cpu"), draw)
    camera = replace(orbit_camera(30, 20, size=45), width=70)
    for frame in (scene(200, 1), scene(0, 0)):
        for got, wanted in zip(render(frame, camera, background=(0.2, 0.5, 0.9)),
                               rasterize(frame, camera, background=(0.2, 0.5, 0.9)), strict=True):  # fmt: skip
            assert got.shape == wanted.shape
            assert (got - wanted).abs().max() < 5e-3
            assert (got - wanted).abs().mean() < 2e-5
