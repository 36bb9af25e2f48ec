"""A cap on the number of Gaussians keeps those that show."""

from pathlib import Path

import torch
from torch.testing import assert_close

from ss4d.stages.export.asset import export_asset
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.visible import most_visible
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip
from tests.helpers.foreign_readers import gaussians, read_with_gsply
from tests.stages.export.clips import lopsided, psnr


def shell(count: int, hidden: int) -> GaussianClip:
    """A ball of bright Gaussians around as many dark ones as `hidden`, which nobody sees."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count + hidden, 3, generator=draw), dim=1)
    radius = torch.cat([torch.full((hidden, 1), 0.1), torch.full((count, 1), 0.4)])
    return gaussians(
        directions * radius,
        torch.full((count + hidden, 3), 0.05),
        torch.tensor([1.0, 0, 0, 0]).repeat(count + hidden, 1),
        torch.cat([torch.zeros(hidden, 3), torch.rand(count, 3, generator=draw)]),
        torch.full((count + hidden,), 0.95),
    )


def test_what_nobody_sees_goes_first() -> None:
    ball = shell(900, hidden=300)
    kept = most_visible(ball, 900)
    assert len(kept.means) == 900
    assert kept.means.norm(dim=1).min() > 0.3
    assert psnr(kept, ball) > 45


def test_it_looks_better_than_a_choice_at_random() -> None:
    ball = lopsided(900)
    rows = torch.randperm(900, generator=torch.Generator().manual_seed(1))[:600].sort().values
    by_chance = gaussians(*(getattr(ball, part)[rows] for part in ("means", "scales", "quats", "colors", "opacities")))
    assert psnr(most_visible(ball, 600), ball) > psnr(by_chance, ball) + 3


def test_each_frame_has_at_most_so_many_in_their_order() -> None:
    clip = lopsided(50, 0, 80)
    told: list[tuple[int, int]] = []
    kept = most_visible(clip, 60, lambda *step: told.append(step))
    assert kept.offsets.tolist() == [0, 50, 50, 110]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert_close(kept.frame(0).means, clip.frame(0).means)
    place = [(clip.frame(2).means == mean).all(1).nonzero().item() for mean in kept.frame(2).means]
    assert place == sorted(place)


def test_every_format_and_the_turntable_are_capped(tmp_path: Path) -> None:
    config = ExportConfig(size=48, frames=2, max_gaussians=40, formats=("ply", "spz"), turntable=False)
    told: list[tuple[int, int]] = []
    files = export_asset(
        config, lopsided(50, 30), 12.0, tmp_path, render=rasterize, progress=lambda *step: told.append(step)
    )
    assert files[-1] == "cameras.json", "and no video"
    assert told == [(done, 6) for done in range(1, 7)]
    for name in ("frames/frame0001.ply", "spz/frame0001.spz"):
        assert len(read_with_gsply(tmp_path / name).means) == 40
