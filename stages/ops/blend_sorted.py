"""Blend spans of Gaussians front to back with long sorted lists, as a GPU likes it.

Axes: s span (image by image, nearest first), p pair of a span and one of its pixels; pixels are those of all images.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.rasterize import MAX_ALPHA, MIN_TRANSMITTANCE


def segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive rows, `lengths` of them each; the same on every run."""
    sums: Tensor = torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True, initial=0)
    return sums


class SortedBlend(torch.autograd.Function):
    """RGB over black and transmittance (num_pixels, 4) of spans, widths and pixels as `_spans` gives them.

    With transmittance T_i = prod_{j < i} (1 - a_j) and weights w_i = T_i a_i, a pixel is
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
        rgb = segment_sum((before * alphas)[:, None] * colors, counts)
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
        sums = segment_sum(pairs, widths)
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
