"""What the camera does not see closes to a surface of the same optical depth; what it sees stays as it is."""

from dataclasses import replace

import torch
from torch import Tensor

from ss4d.stages.fitting.hidden import alone, shown, smoothed
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
    after = smoothed(both, front, SIZE, CPU)
    middle = slice(SIZE // 2 - 8, SIZE // 2 + 8)
    backs = [replace(clip, opacities=torch.where(clip.means[:, 1] < 0, 0.0, clip.opacities)) for clip in (both, after)]
    before, now = (alpha(clip, back)[:, middle, middle] for clip in backs)
    assert before.std() > 3 * now.std()
    assert before.mean() < now.mean() < 2 * before.mean(), "of the same optical depth, no solid wall"


def test_what_the_camera_sees_stays() -> None:
    front, _ = front_and_back()
    both = joined(wall(-0.2, 0.95, 0.02), wall(0.2, 0.7, 0.005))
    after = smoothed(both, front, SIZE, CPU)
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
    after = smoothed(fine, front, SIZE, CPU)
    changed = (after.scales != fine.scales).any(1)
    assert not changed[fine.means[:, 1] < 0].any()
    assert changed[fine.means[:, 1] > 0].float().mean() > 0.9


def test_a_clip_without_gaussians_stays() -> None:
    front, _ = front_and_back()
    full = wall(0.0, 0.5, 0.02)
    empty = GaussianClip(
        **{name: getattr(full, name)[:0] for name in ("means", "scales", "quats", "colors", "opacities")},
        offsets=torch.zeros(3, dtype=torch.int64),
    )
    assert smoothed(empty, front, SIZE, CPU) is empty
