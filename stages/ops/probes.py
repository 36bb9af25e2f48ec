"""Small trials that tell whether a kernel gives what torch's gives on the CPU in float64; the error is a number.

The error is that of the worst row, as a part of the root mean square of all: a kernel that mixes up a few rows among
thousands must not pass for one that rounds. Of a picture it is the largest difference of a pixel.
"""

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.ops import rasterize_reference
from ss4d.stages.ops.attention import Attention, attention, plan
from ss4d.stages.ops.conv import Convolution, conv
from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.geometry import orbit_camera
from ss4d.stages.ops.pooling import NOT_MERGED, pooling
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.ops.triangles import Floats, Integers, SeeTriangles
from ss4d.stages.ops.windows import Groups
from ss4d.stages.types import GaussianClip

CPU = torch.device("cpu")
# The most that rounding does to a row: of float32, products may be of ten bits (TF32).
TOLERANCES = {torch.float32: 3e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}
PICTURE_TOLERANCE = 0.02  # of a color from 0 to 1, in the worst pixel
TRIANGLE_TOLERANCE = 0.05  # of the samples may see another depth: those along edges


def attention_error(attend: Attention, device: torch.device, dtype: torch.dtype, *, gradients: bool) -> float:
    """The error of attention in groups of unequal and equal length, in one, and in one without keys."""
    order = torch.randperm(200, generator=_generator())
    return max(
        _attention_error(attend, queries, keys, rows, dtype, device, gradients)
        for queries, keys, rows in (
            ((3, 70, 1, 4, 300), (5, 9, 261, 0, 40), None),
            ((200,), (200,), None),
            ((40,) * 5, (40,) * 5, order),
        )
    )


def _attention_error(
    attend: Attention,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    order: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    gradients: bool,
) -> float:
    counts = (sum(queries), sum(keys), sum(keys), sum(queries))
    rows = [_rows(count, 4, 64, seed=seed).to(dtype) for seed, count in enumerate(counts)]

    def results(of: Attention, place: torch.device, numbers: torch.dtype) -> list[Tensor]:
        there = None if order is None else order.to(place)
        groups = plan(Groups(queries, there), Groups(keys, there), place)
        *leaves, push = _leaves(rows, place, numbers, gradients)
        q, k, v = (torch.stack([x, x], dim=1)[:, 0] for x in leaves)  # rows apart in memory, as networks have them
        return _with_gradients(of(q, k, v, groups), leaves, push, gradients)

    return _worst(results(attend, device, dtype), results(attention, CPU, torch.float64))


def convolution_error(convolve: Convolution, device: torch.device, dtype: torch.dtype, *, gradients: bool) -> float:
    """The error over space, over time and over both, on coordinates that lie one after the other and that do not, of
    rows and of copies of merged rows.
    """
    return max(
        _convolution_error(convolve, kernel, stride, dtype, device, gradients, transposed=transposed)
        for kernel, merged in (((3, 3, 3), (1, 2, 2, 2)), ((3, 1, 1, 1), (2, 1, 1, 1)), ((3, 3, 3, 3), (2, 2, 2, 2)))
        for stride, transposed in ((NOT_MERGED, False), (NOT_MERGED, True), (merged, False))
    )


def _convolution_error(
    convolve: Convolution,
    kernel: tuple[int, ...],
    stride: PerAxis,
    dtype: torch.dtype,
    device: torch.device,
    gradients: bool,
    *,
    transposed: bool,
) -> float:
    cells = torch.randint(0, 6, (900, 5), generator=_generator(), dtype=torch.int32)
    coords = torch.unique(cells % torch.tensor([2, 4, 6, 6, 6], dtype=torch.int32), dim=0)
    if transposed:
        coords = coords.t().contiguous().t()
    weight = _rows(64, *kernel, 32, seed=1) / (math.prod(kernel) * 32) ** 0.5
    num_rows = len(coords) if stride == NOT_MERGED else len(pooling(Sites(coords), stride).coarse)
    values = (_rows(num_rows, 32, seed=0), weight, _rows(64, seed=2), _rows(len(coords), 64, seed=3))

    def results(of: Convolution, place: torch.device, numbers: torch.dtype) -> list[Tensor]:
        sites = Sites(coords.to(place))
        *leaves, push = _leaves([x.to(dtype) for x in values], place, numbers, gradients)
        return _with_gradients(of(leaves[0], sites, leaves[1], leaves[2], stride), leaves, push, gradients)

    return _worst(results(convolve, device, dtype), results(conv, CPU, torch.float64))


def picture_error(draw: Rasterize) -> float:
    """The largest difference of a pixel, over pictures of many Gaussians and of none."""
    camera = orbit_camera(30, 20, size=64)
    worst = 0.0
    for count in (400, 0):
        scene = random_scene(count, scale=0.03)
        for got, wanted in zip(draw(scene, camera), rasterize_reference.rasterize(scene, camera), strict=True):
            difference = (got.detach().cpu() - wanted).abs()
            worst = max(worst, math.inf if difference.isnan().any() else float(difference.max()))
    return worst


def triangle_error(see: SeeTriangles) -> float:
    """The share of samples that see another depth than they should, over many triangles and none."""
    height, width, worst = 56, 72, 0.0
    for count in (40, 0):
        middle = _rows(count, 1, 3, seed=5) * torch.tensor([16.0, 12.0, 0.1]) + torch.tensor([36.0, 28.0, 0.5])
        points = (middle + _rows(count, 3, 3, seed=6) * torch.tensor([9.0, 9.0, 0.05])).view(-1, 3).numpy()
        faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
        got, wanted = see(points, faces, height, width).depth, _plain_depth(points, faces, height, width)
        wrong = ~np.isclose(got, wanted, rtol=1e-3)
        worst = max(worst, float(wrong.mean()))
    return worst


def _plain_depth(points: Floats, faces: Integers, height: int, width: int) -> Floats:
    """The depth (h, w) that samples see, by asking each about each triangle; infinite where there is none."""
    y, x = np.mgrid[:height, :width] + 0.5
    nearest = np.zeros((height, width))
    for (x0, y0, i0), (x1, y1, i1), (x2, y2, i2) in points[faces].astype(np.float64):
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        first = ((x - x0) * (y2 - y0) - (y - y0) * (x2 - x0)) / area
        second = ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) / area
        inside = (first >= 0) & (second >= 0) & (first + second <= 1) & (min(i0, i1, i2) > 0)
        nearest = np.maximum(nearest, np.where(inside, i0 + first * (i1 - i0) + second * (i2 - i0), 0))
    with np.errstate(divide="ignore"):
        return (1 / nearest).astype(np.float32)


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


def _leaves(values: Sequence[Tensor], device: torch.device, dtype: torch.dtype, gradients: bool) -> list[Tensor]:
    """The same numbers somewhere else, in another format."""
    return [x.to(device, dtype, copy=True).requires_grad_(gradients) for x in values]


def _with_gradients(out: Tensor, leaves: Sequence[Tensor], push: Tensor, gradients: bool) -> list[Tensor]:
    """What came out, and its derivatives along `push` by the leaves."""
    if not gradients:
        return [out]
    return [out.detach(), *torch.autograd.grad((out.double() * push.detach().double()).sum(), list(leaves))]


def _worst(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    return max(_error(*pair) for pair in zip(got, wanted, strict=True))


def _error(got: Tensor, wanted: Tensor) -> float:
    """Of the worst row, as a part of all rows' root mean square; infinite where anything is not a number."""
    got, wanted = (x.detach().cpu().double().reshape(len(x), -1) for x in (got, wanted))
    error = float((got - wanted).square().mean(1).max().sqrt() / wanted.square().mean().sqrt())
    return error if math.isfinite(error) else math.inf
