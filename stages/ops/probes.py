"""Small trials that tell whether a kernel gives what the one that is compared with gives; the error is a number.

The error is that of the worst row (or picture), as a part of the root mean square of all: a kernel that mixes up a few
rows among thousands must not pass for one that rounds.
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.ops.attention import Attention, AttentionPlan, attention, plan
from ss4d.stages.ops.conv import Convolution, conv
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.rasterize import Rasterize, rasterize
from ss4d.stages.ops.windows import Groups
from ss4d.stages.types import GaussianClip

# The most that rounding does to a row: of float32, products may be of ten bits (TF32).
TOLERANCES = {torch.float32: 3e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}
PICTURE_TOLERANCE = 0.02  # of a color from 0 to 1, in the worst pixel


def attention_error(attend: Attention, device: torch.device, dtype: torch.dtype, *, gradients: bool) -> float:
    """The error of attention in groups of unequal and equal length, in one, and in one without keys."""
    ragged = Groups((3, 70, 1, 4, 300)), Groups((5, 9, 261, 0, 40))
    alone, equal = Groups((200,)), Groups((40,) * 5, torch.randperm(200, generator=_generator()).to(device))
    plans = [plan(*ragged, device), plan(alone, alone, device), plan(equal, equal, device)]
    return max(_attention_error(attend, groups, dtype, device, gradients) for groups in plans)


def _attention_error(
    attend: Attention, groups: AttentionPlan, dtype: torch.dtype, device: torch.device, gradients: bool
) -> float:
    num_queries, num_keys = (sum(b.count * getattr(b, side) for b in groups.buckets) for side in ("query", "key"))
    rows = [_rows(n, 4, 64, seed=seed).to(device, dtype) for seed, n in enumerate((num_queries, num_keys, num_keys))]
    push = _rows(num_queries, 4, 64, seed=3).to(device, dtype)

    def results(of: Attention, leaves: Sequence[Tensor]) -> list[Tensor]:
        q, k, v = (torch.stack([x, x], dim=1)[:, 0] for x in leaves)  # rows apart in memory, as networks have them
        return _with_gradients(of(q, k, v, groups), leaves, push, gradients)

    return _worst(results(attend, _leaves(rows, dtype, gradients)), results(attention, _leaves(rows, None, gradients)))


def convolution_error(convolve: Convolution, device: torch.device, dtype: torch.dtype, *, gradients: bool) -> float:
    """The error over space, over time and over both, on coordinates that lie one after the other and that do not."""
    return max(
        _convolution_error(convolve, kernel, dtype, device, gradients, transposed=transposed)
        for kernel in ((3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3))
        for transposed in (False, True)
    )


def _convolution_error(
    convolve: Convolution,
    kernel: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    gradients: bool,
    *,
    transposed: bool,
) -> float:
    cells = torch.randint(0, 6, (900, 5), generator=_generator(), dtype=torch.int32)
    coords = torch.unique(cells % torch.tensor([2, 4, 6, 6, 6], dtype=torch.int32), dim=0).to(device)
    sites = Sites(coords.t().contiguous().t() if transposed else coords.contiguous())
    weight = _rows(64, *kernel, 32, seed=1) / (math.prod(kernel) * 32) ** 0.5
    values = [x.to(device, dtype) for x in (_rows(len(sites), 32, seed=0), weight, _rows(64, seed=2))]
    push = _rows(len(sites), 64, seed=3).to(device, dtype)

    def results(of: Convolution, leaves: Sequence[Tensor]) -> list[Tensor]:
        return _with_gradients(of(leaves[0], sites, leaves[1], leaves[2]), leaves, push, gradients)

    return _worst(results(convolve, _leaves(values, dtype, gradients)), results(conv, _leaves(values, None, gradients)))


def picture_error(draw: Rasterize) -> float:
    """The largest difference of a pixel, over pictures of many Gaussians and of none."""
    camera = orbit_camera(30, 20, size=64)
    worst = 0.0
    for count in (400, 0):
        scene = random_scene(count, scale=0.03)
        for got, wanted in zip(draw(scene, camera), rasterize(scene, camera), strict=True):
            difference = (got.detach().cpu() - wanted).abs()
            worst = max(worst, math.inf if difference.isnan().any() else float(difference.max()))
    return worst


def picture_seconds(draw: Rasterize, count: int = 200_000, size: int = 512) -> float:
    """How long it draws a picture of `count` Gaussians, such as an object of the published size has in a frame."""
    scene, camera = random_scene(count, scale=0.003), orbit_camera(30, 20, size=size)
    best = math.inf
    for _ in range(3):  # the first time, kernels are loaded
        started = time.perf_counter()
        draw(scene, camera)[0].cpu()
        best = min(best, time.perf_counter() - started)
    return best


def random_scene(count: int, *, scale: float) -> GaussianClip:
    """Gaussians of unequal sizes and shapes around `scale`, some hardly visible and none so opaque that caps show."""
    return GaussianClip(
        means=0.2 * _rows(count, 3, seed=0),
        scales=scale * (0.5 * _rows(count, 3, seed=1)).exp(),
        quats=functional.normalize(_rows(count, 4, seed=2), dim=-1),
        colors=_rows(count, 3, seed=3).sigmoid(),
        opacities=0.9 * _rows(count, seed=4).sigmoid(),
        offsets=torch.tensor([0, count]),
    )


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=_generator(seed))


def _leaves(values: Sequence[Tensor], dtype: torch.dtype | None, gradients: bool) -> list[Tensor]:
    """The same numbers in `dtype`, or in float32 for what is compared with."""
    return [x.to(dtype or torch.float32, copy=True).requires_grad_(gradients) for x in values]


def _with_gradients(out: Tensor, leaves: Sequence[Tensor], push: Tensor, gradients: bool) -> list[Tensor]:
    """What came out, and its derivatives along `push` by the leaves."""
    if not gradients:
        return [out]
    return [out.detach(), *torch.autograd.grad((out.float() * push.float()).sum(), list(leaves))]


def _worst(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    return max(_error(*pair) for pair in zip(got, wanted, strict=True))


def _error(got: Tensor, wanted: Tensor) -> float:
    """Of the worst row, as a part of all rows' root mean square; infinite where anything is not a number."""
    got, wanted = (x.detach().float().reshape(len(x), -1) for x in (got, wanted))
    error = float((got - wanted).square().mean(1).max().sqrt() / wanted.square().mean().sqrt())
    return error if math.isfinite(error) else math.inf
