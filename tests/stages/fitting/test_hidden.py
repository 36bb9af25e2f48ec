"""What the camera does not see closes to a surface of the same optical depth, as bright as the front, which stays."""

from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.fitting.hidden import alone, brightened, hidden_from, shown, smoothed
from ss4d.stages.fitting.pictures import around, drawn, unpacked
from ss4d.stages.types import Camera, GaussianClip

CPU = torch.device("cpu")
SIZE = 96


def wall(depth: float, opacity: float, scale: float, gap: float = 0.03) -> GaussianClip:
    """A wall of round Gaussians across the camera's direction, in two frames."""
    axis = torch.arange(-0.3, 0.3, gap)
    x, z = torch.cartesian_prod(axis, axis).unbind(1)
    means = torch.stack([x, torch.full_like(x, depth), z], dim=1).repeat(2, 1)
    count = len(means)
    return GaussianClip(
        means=means,
        scales=torch.full((count, 3), scale),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        colors=torch.full((count, 3), 0.5),
        opacities=torch.full((count,), opacity),
        offsets=torch.tensor([0, count // 2, count]),
    )


def joined(first: GaussianClip, second: GaussianClip) -> GaussianClip:
    """Both in each of the two frames."""
    arrays = {}
    for name in ("means", "scales", "quats", "colors", "opacities"):
        halves = [getattr(clip, name).chunk(2) for clip in (first, second)]
        arrays[name] = torch.cat([half[t] for t in range(2) for half in halves])
    return GaussianClip(**arrays, offsets=first.offsets + second.offsets)


def alpha(asset: GaussianClip, camera: Camera) -> Tensor:
    gaussians, offsets = unpacked(asset, CPU)
    return drawn(gaussians, offsets, torch.arange(2), [camera] * 2)[..., 3]


def front_and_back() -> tuple[Camera, Camera]:
    front, back = around(0.0, ((0.0, 0.0), (180.0, 0.0)), SIZE)
    return front, back


def test_a_net_that_is_hidden_closes() -> None:
    front, back = front_and_back()
    both = joined(wall(-0.2, 0.95, 0.02), wall(0.2, 0.7, 0.005))
    after = smoothed(both, hidden_from(both, front, SIZE, CPU))
    middle = slice(SIZE // 2 - 8, SIZE // 2 + 8)
    backs = [replace(clip, opacities=torch.where(clip.means[:, 1] < 0, 0.0, clip.opacities)) for clip in (both, after)]
    before, now = (alpha(clip, back)[:, middle, middle] for clip in backs)
    assert before.std() > 3 * now.std()
    assert before.mean() < now.mean() < 2 * before.mean(), "of the same optical depth, no solid wall"


def test_what_the_camera_sees_stays() -> None:
    front, _ = front_and_back()
    both = joined(wall(-0.2, 0.95, 0.02), wall(0.2, 0.7, 0.005))
    after = smoothed(both, hidden_from(both, front, SIZE, CPU))
    seen = both.means[:, 1] < 0
    for name in ("scales", "opacities"):
        assert torch.equal(getattr(after, name)[seen], getattr(both, name)[seen])
        assert not torch.equal(getattr(after, name)[~seen], getattr(both, name)[~seen])
    for name in ("means", "quats", "colors", "offsets"):
        assert torch.equal(getattr(after, name), getattr(both, name))
    assert (alpha(after, front) - alpha(both, front)).abs().mean() < 0.01


def test_covered_pixels_are_counted() -> None:
    front, _ = front_and_back()
    single = wall(0.0, 0.5, 0.02, gap=0.5)
    asset, offsets = unpacked(single, CPU)
    painted = drawn(asset, offsets, torch.arange(1), [front])[0, ..., 3].sum()
    found = shown(single, front, SIZE, CPU)[: int(single.offsets[1])]
    assert torch.isclose(found.sum(), painted, rtol=1e-3)
    assert torch.allclose(found, alone(single, front, SIZE)[: len(found)], rtol=0.15), "nothing hides another"


def test_many_small_gaussians_are_seen_as_few_large_ones_are() -> None:
    front, _ = front_and_back()
    fine = joined(wall(-0.2, 0.95, 0.004, gap=0.006), wall(0.2, 0.7, 0.0015, gap=0.006))
    after = smoothed(fine, hidden_from(fine, front, SIZE, CPU))
    changed = (after.scales != fine.scales).any(1)
    assert not changed[fine.means[:, 1] < 0].any()
    assert changed[fine.means[:, 1] > 0].float().mean() > 0.9


def front_of(asset: GaussianClip, camera: Camera, gain: tuple[float, float, float]) -> Tensor:
    """What the camera sees of the asset, and its channels so many times as bright."""
    gaussians, offsets = unpacked(asset, CPU)
    picture = drawn(gaussians, offsets, torch.arange(2), [camera] * 2)
    return torch.cat([picture[..., :3] * torch.tensor(gain), picture[..., 3:]], dim=-1)


def solid() -> GaussianClip:
    return joined(wall(-0.2, 0.9, 0.02), wall(0.2, 0.9, 0.02))


def test_backs_get_as_bright_as_the_front_and_never_darker() -> None:
    front, _ = front_and_back()
    both, wanted = solid(), front_of(solid(), front, (1.4, 0.6, 1.1))
    hidden = hidden_from(both, front, SIZE, CPU)
    back = both.means[:, 1] > 0
    assert hidden[back].float().mean() > 0.9
    assert not hidden[~back].any()
    after = brightened(both, hidden, wanted, front)
    assert torch.allclose(after.colors[hidden], 0.5 * torch.tensor([1.4, 1.0, 1.1]), atol=0.01)
    assert torch.equal(after.colors[~hidden], both.colors[~hidden])
    for name in ("means", "scales", "quats", "opacities", "offsets"):
        assert torch.equal(getattr(after, name), getattr(both, name))


def test_no_back_is_brightened_beyond_all_measure() -> None:
    front, _ = front_and_back()
    both = solid()
    dark = replace(both, colors=torch.full_like(both.colors, 0.02))
    hidden = hidden_from(dark, front, SIZE, CPU)
    after = brightened(dark, hidden, front_of(dark, front, (40.0, 40.0, 40.0)), front)
    assert torch.allclose(after.colors[hidden], torch.tensor(0.02 * 1.7))
    white = replace(both, colors=torch.full_like(both.colors, 0.9))
    after = brightened(white, hidden, front_of(white, front, (1.5, 1.5, 1.5)), front)
    assert torch.allclose(after.colors[hidden], torch.tensor(1.0))


def test_a_front_that_has_nothing_in_common_with_the_input_brightens_nothing() -> None:
    front, _ = front_and_back()
    both = solid()
    hidden = hidden_from(both, front, SIZE, CPU)
    after = brightened(both, hidden, torch.zeros(2, SIZE, SIZE, 4), front)
    assert torch.equal(after.colors, both.colors)
