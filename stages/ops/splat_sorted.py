"""Draw Gaussians with gradients in plain torch, on any device, with long sorted lists; see `ss4d.stages.ops.splat`.

A Gaussian covers some rows of an image, and in each row a span of pixels where its alpha is at least 1/255; a pair is
a Gaussian and one pixel it covers. All pairs are listed span by span, sorted by pixel (stably, so that they stay
nearest first), and blended with sums along the list. Sums run over segments, never by atomic additions, and
transmittance is a running sum of logarithms in float64.

Axes: n Gaussian, k image, g Gaussian in an image, s span, p pair.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.blend_sorted import SortedBlend, segment_sum
from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.ops.rasterize import JACOBIAN_LIMIT, MIN_ALPHA, NEAR, ScreenFilter
from ss4d.stages.ops.splat import Gaussians, Views

MAX_PAIRS = 2**24  # blended at once, or those of one row: about 100 bytes each while it lasts, 20 until backward


def draw_sorted(gaussians: Gaussians, offsets: Tensor, views: Views, screen_filter: ScreenFilter) -> Tensor:
    """RGB over black and transmittance (k height width, 4); see `ss4d.stages.ops.splat.splat`."""
    rows, images = _shown(gaussians.means.detach(), offsets, views)
    splats = _project(gaussians, rows, images, views, screen_filter)
    spans, widths, pixels = _spans(splats, images, views.height, views.width)
    pieces = _chunks(widths, pixels, len(views.frames), views.height, views.width)
    return torch.cat([
        SortedBlend.apply(spans[part], widths[part], pixels[part] - first, count)  # type: ignore[no-untyped-call]
        for part, first, count in pieces
    ])  # fmt: skip


def _shown(means: Tensor, offsets: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Rows (g) of the Gaussians in front of each camera and their images (g); image by image, nearest first."""
    counts = (offsets[1:] - offsets[:-1])[views.frames]
    images = torch.arange(len(counts), device=means.device).repeat_interleave(counts)
    rows = torch.arange(len(images), device=means.device)
    rows = rows + (offsets[views.frames] - counts.cumsum(0) + counts)[images]
    toward = views.world_to_camera[:, 2].to(means.dtype)[images]
    depths = (means[rows] * toward[:, :3]).sum(1) + toward[:, 3]
    order = depths.argsort(stable=True)
    order = order[depths[order] > NEAR]
    order = order[images[order].argsort(stable=True)]
    return rows[order], images[order]


def _project(gaussians: Gaussians, rows: Tensor, images: Tensor, views: Views, screen_filter: ScreenFilter) -> Tensor:
    """Splats (g, 9): center x, y; l11, l21, l22; opacity; r, g, b.

    The exponent at an offset (dx, dy) is -(l11 dx + l21 dy)^2 - (l22 dy)^2, as in `ss4d.stages.ops.rasterize`.
    """
    parts = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.colors, gaussians.opacities)
    means, scales, quats, colors, opacities = (part[rows] for part in parts)
    cameras, focals = views.world_to_camera.to(means.dtype)[images], views.focals.to(means.dtype)[images]
    # Sums of products, not matrix products: those a GPU may be told to round to ten bits (TF32), a tenth of a pixel.
    turns = cameras[:, :3, :3]
    points = (turns * means[:, None]).sum(2) + cameras[:, :3, 3]
    axes = (turns[..., None] * quaternion_to_matrix(quats)[:, None]).sum(2) * scales[:, None]  # a column each
    slopes = points[:, :2] / points[:, 2:]
    zoom = (focals / points[:, 2])[:, None]
    frame = means.new_tensor([views.width, views.height]) / 2
    limits = JACOBIAN_LIMIT * frame / focals[:, None]
    bent = slopes.clamp(-limits, limits)
    u, v = zoom * (axes[:, 0] - bent[:, :1] * axes[:, 2]), zoom * (axes[:, 1] - bent[:, 1:] * axes[:, 2])
    xx, xy, yy = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    # By the theorem of Cauchy and Binet the determinant is a sum of squares: needles lose no digits.
    before = torch.linalg.cross(u, v).square().sum(1)
    after = before + screen_filter.variance * (xx + yy) + screen_filter.variance**2
    xx, yy = xx + screen_filter.variance, yy + screen_filter.variance
    opacity = opacities.squeeze(1)
    if screen_filter.compensate:
        # The root has no slope at 0, where a Gaussian seen edge-on would otherwise make gradients infinite.
        opacity = opacity * (before.clamp(min=torch.finfo(before.dtype).tiny) / after).sqrt()
    centers = focals[:, None] * slopes + frame
    factors = ((0.5 * yy / after).sqrt(), -xy * (0.5 / (yy * after)).sqrt(), (0.5 / yy).sqrt())
    return torch.cat([centers, torch.stack([*factors, opacity], dim=1), colors.clamp(min=0)], dim=1)


def _spans(splats: Tensor, images: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of pixels that each splat covers.

    Returns:
        Spans (s, 7): l11; l11 dx + l21 dy at the first pixel; (l22 dy)^2; opacity; r, g, b. How many pixels each has
        (s), and its first pixel (s), counted through all images.
    """
    with torch.no_grad():
        reach = (splats[:, 5] / MIN_ALPHA).log().clamp(min=0)  # of one that never shows: the center, left out below
        half = reach.sqrt() / splats[:, 4]
        first = (splats[:, 1] - half - 0.5).clamp(0, height).ceil()
        counts = (splats[:, 1] + half - 0.5).clamp(-1, height - 1).floor() - first + 1
        counts = torch.where(splats[:, 5] >= MIN_ALPHA, counts, 0).clamp(min=0).long()
        owners = torch.arange(len(splats), device=splats.device).repeat_interleave(counts)
        starts = counts.cumsum(0) - counts
        line = first.long()[owners] + torch.arange(len(owners), device=owners.device) - starts[owners]
    repeated: Tensor = _Repeat.apply(splats, owners, counts)  # type: ignore[no-untyped-call]  # torch does not say
    x, y, l11, l21, l22, opacity, *_ = repeated.unbind(1)
    dy = line.to(y.dtype) + 0.5 - y
    vertical, shift = (l22 * dy).square(), l21 * dy
    with torch.no_grad():
        half = (reach[owners] - vertical).clamp(min=0).sqrt() / l11
        middle = x - shift / l11 - 0.5
        left = (middle - half).clamp(0, width).ceil()
        widths = ((middle + half).clamp(-1, width - 1).floor() - left + 1).clamp(min=0).long()
        # A span beside the image has no pixels, but has to name one of this image.
        pixels = (images[owners] * height + line) * width + left.clamp(max=width - 1).long()
    table = torch.stack([l11, l11 * (left + 0.5 - x) + shift, vertical, opacity], dim=1)
    return torch.cat([table, repeated[:, 6:]], dim=1), widths, pixels


def _chunks(
    widths: Tensor, pixels: Tensor, num_images: int, height: int, width: int
) -> Iterator[tuple[slice | Tensor, int, int]]:
    """Spans of as many images, or rows of one, as have at most `MAX_PAIRS` pairs; their first pixel, how many pixels.

    Images that are drawn as a whole lie together, so that their spans are a slice.
    """
    area = height * width
    images = pixels // area
    spans = torch.bincount(images, minlength=num_images).cumsum(0).tolist()
    pairs = _sums(widths, images, num_images)
    for start, stop in _within_limit(pairs):
        inside = slice(spans[start - 1] if start else 0, spans[stop - 1])
        if pairs[start] <= MAX_PAIRS:
            yield inside, start * area, (stop - start) * area
            continue
        rows = (pixels[inside] - start * area) // width
        for top, bottom in _within_limit(_sums(widths[inside], rows, height)):
            chosen = ((rows >= top) & (rows < bottom)).nonzero().squeeze(1) + inside.start
            yield chosen, start * area + top * width, (bottom - top) * width


def _sums(values: Tensor, groups: Tensor, num_groups: int) -> list[int]:
    """The sum of each group's values."""
    sums: list[int] = values.new_zeros(num_groups).index_add_(0, groups, values).tolist()
    return sums


def _within_limit(pairs: Sequence[int]) -> list[tuple[int, int]]:
    """From which to which of neighbors have at most `MAX_PAIRS` pairs together; one may have more by itself."""
    parts, start, total = [], 0, 0
    for place, count in enumerate(pairs):
        if place > start and total + count > MAX_PAIRS:
            parts.append((start, place))
            start, total = place, 0
        total += count
    return [*parts, (start, len(pairs))]


class _Repeat(torch.autograd.Function):
    """Rows `values[owners]`, owners listed in order, `counts` times each."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(counts)
        return values.index_select(0, owners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (counts,) = ctx.saved_tensors
        return segment_sum(grad.contiguous(), counts), None, None
