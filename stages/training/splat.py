"""Draw Gaussians from many cameras at once with gradients, in plain torch, on any device.

The picture is the one of `stages.ops.rasterize` up to rounding. As there, alpha is capped at 0.99, alpha under 1/255 is
skipped and a pixel is finished before its transmittance would fall under 1e-4; gradients take these choices as given.

A Gaussian covers some rows of an image, and in each row a span of pixels where its alpha is at least 1/255; a pair is a
Gaussian and one pixel it covers. All pairs are listed span by span, sorted by pixel (stably, so that they stay nearest
first), and blended with sums along the list. Sums run over segments, never by atomic additions, and transmittance is a
running sum of logarithms in float64.

Axes: n Gaussian, k image, g Gaussian in an image, s span, p pair; images are (k, row, column) with pixel centres at
half integers; camera space is x right, y down, z forward.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.nn.gaussian_decoder import Gaussians
from stages.ops.geometry import quaternion_to_matrix
from stages.ops.rasterize import (
    JACOBIAN_LIMIT,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    MIP_SPLATTING,
    NEAR,
    ScreenFilter,
)

MAX_PAIRS = 2**24  # blended at once, or the pairs of one image: about 100 bytes each while it lasts, 20 until backward


@dataclass(frozen=True, eq=False, kw_only=True)
class Views:
    """Images to draw.

    Attributes:
        frames: (k) int64, the frame that each image shows.
        world_to_camera: (k, 4, 4).
        focals: (k) in pixels.
        backgrounds: (k, 3) RGB behind the Gaussians.
        size: pixels along each side.
    """

    frames: Tensor
    world_to_camera: Tensor
    focals: Tensor
    backgrounds: Tensor
    size: int


def splat(
    gaussians: Gaussians, offsets: Tensor, views: Views, *, screen_filter: ScreenFilter = MIP_SPLATTING
) -> tuple[Tensor, Tensor]:
    """Colour and coverage of every image, with gradients to all five parts of the Gaussians.

    Args:
        gaussians: of all frames, packed, float32 or float64; autocast leaves them alone.
        offsets: (frames + 1) int64, first row of each frame, then the number of rows.
        views: k images, on the device of the Gaussians.
        screen_filter: as in `stages.ops.rasterize`.

    Returns:
        RGB (k, size, size, 3) and alpha (k, size, size), of the Gaussians' dtype.
    """
    with torch.autocast(gaussians.means.device.type, enabled=False):
        rows, images = _shown(gaussians.means.detach(), offsets, views)
        splats = _project(gaussians, rows, images, views, screen_filter)
        spans, widths, pixels = _spans(splats, images, views.size)
        blended = torch.cat([
            _blend(spans[part], widths[part], pixels[part] - first, count)
            for part, first, count in _chunks(widths, pixels, len(views.frames), views.size**2)
        ])  # fmt: skip
        light = blended[:, 3].view(-1, views.size, views.size)
        rgb = blended[:, :3].view(-1, views.size, views.size, 3)
        return rgb + light[..., None] * views.backgrounds[:, None, None].to(rgb.dtype), 1 - light


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
    """Splats (g, 9): centre x, y; l11, l21, l22; opacity; r, g, b.

    The exponent at an offset (dx, dy) is -(l11 dx + l21 dy)^2 - (l22 dy)^2, as in `stages.ops.rasterize`.
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
    limits = (JACOBIAN_LIMIT * views.size / 2 / focals)[:, None]
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
    centers = focals[:, None] * slopes + views.size / 2
    factors = ((0.5 * yy / after).sqrt(), -xy * (0.5 / (yy * after)).sqrt(), (0.5 / yy).sqrt())
    return torch.cat([centers, torch.stack([*factors, opacity], dim=1), colors.clamp(min=0)], dim=1)


def _spans(splats: Tensor, images: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of pixels that each splat covers.

    Returns:
        Spans (s, 7): l11; l11 dx + l21 dy at the first pixel; (l22 dy)^2; opacity; r, g, b. How many pixels each has
        (s), and its first pixel (s), counted through all images.
    """
    with torch.no_grad():
        reach = (splats[:, 5] / MIN_ALPHA).log().clamp(min=0)  # of one that never shows: the centre, left out below
        half = reach.sqrt() / splats[:, 4]
        first = (splats[:, 1] - half - 0.5).clamp(0, size).ceil()
        counts = (splats[:, 1] + half - 0.5).clamp(-1, size - 1).floor() - first + 1
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
        left = (middle - half).clamp(0, size).ceil()
        widths = ((middle + half).clamp(-1, size - 1).floor() - left + 1).clamp(min=0).long()
        # A span beside the image has no pixels, but has to name one of this image.
        pixels = (images[owners] * size + line) * size + left.clamp(max=size - 1).long()
    table = torch.stack([l11, l11 * (left + 0.5 - x) + shift, vertical, opacity], dim=1)
    return torch.cat([table, repeated[:, 6:]], dim=1), widths, pixels


def _chunks(widths: Tensor, pixels: Tensor, num_images: int, area: int) -> list[tuple[slice, int, int]]:
    """Spans of as many images as have at most `MAX_PAIRS` pairs, their first pixel and how many pixels they have."""
    images = pixels // area
    pairs = torch.zeros(num_images, dtype=torch.int64, device=widths.device).index_add_(0, images, widths).tolist()
    spans = torch.bincount(images, minlength=num_images).tolist()
    chunks, start, row, total = [], 0, 0, 0
    for image in range(num_images):
        total += pairs[image]
        if image + 1 == num_images or total + pairs[image + 1] > MAX_PAIRS:
            stop = row + sum(spans[start : image + 1])
            chunks.append((slice(row, stop), start * area, (image + 1 - start) * area))
            start, row, total = image + 1, stop, 0
    return chunks


def _segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive rows, `lengths` of them each; the same on every run."""
    sums: Tensor = torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True, initial=0)
    return sums


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
        return _segment_sum(grad.contiguous(), counts), None, None


def _blend(spans: Tensor, widths: Tensor, pixels: Tensor, num_pixels: int) -> Tensor:
    """RGB over black and transmittance (num_pixels, 4); arguments as `_spans` gives them."""
    blended: Tensor = _Blend.apply(spans, widths, pixels, num_pixels)  # type: ignore[no-untyped-call]  # as above
    return blended


class _Blend(torch.autograd.Function):
    """Front-to-back blending. With transmittance T_i = prod_{j < i} (1 - a_j) and weights w_i = T_i a_i, a pixel is
    sum_i w_i c_i and T_end; and with g_i the derivative by w_i and e that by T_end, the derivative by a_i is
    T_i g_i - (sum_{j > i} w_j g_j + T_end e) / (1 - a_i).
    """

    @staticmethod
    def forward(ctx: Any, spans: Tensor, widths: Tensor, pixels: Tensor, num_pixels: int) -> Tensor:
        starts = widths.cumsum(0) - widths
        span = torch.arange(len(widths), device=widths.device).repeat_interleave(widths)
        place = torch.arange(len(span), device=span.device)
        slope, shift, vertical, opacity = spans[:, :4].index_select(0, span).unbind(1)
        u = (place - starts[span]).to(slope.dtype) * slope + shift
        alphas = (opacity * (-u.square() - vertical).exp()).clamp(max=MAX_ALPHA)
        pixel, order = (place + (pixels - starts)[span]).int().sort(stable=True)
        alphas = alphas[order]

        after, before = _transmittances(alphas, pixel, num_pixels)
        kept = (after >= MIN_TRANSMITTANCE).nonzero().squeeze(1)
        pixel, order, alphas, before = (x[kept] for x in (pixel, order, alphas, before))
        span = span[order]
        counts = torch.bincount(pixel, minlength=num_pixels)
        colors = spans[:, 4:].index_select(0, span)
        rgb = _segment_sum((before * alphas)[:, None] * colors, counts)
        ends = torch.cat([after.new_ones(1), after[kept]])[torch.where(counts > 0, counts.cumsum(0), 0)]
        ctx.num_pairs = len(place)
        ctx.save_for_backward(spans, widths, counts, ends, pixel, order.int(), span.int(), alphas, before)
        return torch.cat([rgb, ends[:, None]], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        spans, widths, counts, ends, pixel, order, span, alphas, before = ctx.saved_tensors
        pulls = grad[:, :3].index_select(0, pixel)
        gains = (pulls * spans[:, 4:].index_select(0, span)).sum(1)
        weights = before * alphas
        running = (weights * gains).double().cumsum(0)
        whole = torch.cat([running.new_zeros(1), running])[counts.cumsum(0)] + ends * grad[:, 3]
        behind = (whole.index_select(0, pixel) - running).to(alphas.dtype)
        by_alpha = before * gains - behind / (1 - alphas)

        slope, shift = spans[:, :2].index_select(0, span).unbind(1)
        column = (order - (widths.cumsum(0) - widths).int().index_select(0, span)).to(alphas.dtype)
        u = column * slope + shift
        by_log = torch.where(alphas < MAX_ALPHA, by_alpha * alphas, 0)
        by_u = by_log * u
        table = torch.stack([by_u * column, by_u, by_log], dim=1)
        pairs = table.new_zeros(ctx.num_pairs, 6)
        pairs[order] = torch.cat([table, weights[:, None] * pulls], dim=1)
        sums = _segment_sum(pairs, widths)
        by_spans = torch.cat([-2 * sums[:, :2], -sums[:, 2:3], sums[:, 2:3] / spans[:, 3:4], sums[:, 3:]], dim=1)
        return by_spans, None, None, None


def _transmittances(alphas: Tensor, pixel: Tensor, num_pixels: int) -> tuple[Tensor, Tensor]:
    """The light that is left after and before each pair; `pixel` is sorted."""
    logs = (-alphas.double()).log1p()
    running = logs.cumsum(0)
    counts = torch.bincount(pixel, minlength=num_pixels)
    nothing = torch.cat([running.new_zeros(1), running])[counts.cumsum(0) - counts]
    total = running - nothing.index_select(0, pixel)
    return total.exp().to(alphas.dtype), (total - logs).exp().to(alphas.dtype)
