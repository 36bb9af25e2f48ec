"""Blend spans of Gaussians front to back on a CPU: pixel by pixel in loops, where `splat` sorts long lists for a GPU.

Axes: s span (image by image, nearest first), p pixel of all images.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ss4d.stages.ops.compiled import kernel, spread
from ss4d.stages.ops.rasterize import MAX_ALPHA, MIN_TRANSMITTANCE


class LoopBlend(torch.autograd.Function):
    """What `SortedBlend` is, with the images shared out over threads; the same on every run."""

    @staticmethod
    def forward(ctx: Any, spans: Tensor, widths: Tensor, pixels: Tensor, num_pixels: int, area: int) -> Tensor:
        blended = spans.new_zeros(num_pixels, 4)
        blended[:, 3] = 1
        ends = torch.full((num_pixels,), len(spans), dtype=torch.int64)  # the first span a pixel is finished before
        ctx.save_for_backward(spans, widths, pixels, blended, ends)
        ctx.area = area
        _by_image(_forward, area, spans, widths, pixels, blended, ends)
        return blended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        spans, widths, pixels, blended, ends = ctx.saved_tensors
        by_spans = torch.zeros_like(spans)
        left = blended[:, 3].to(torch.float64, copy=True)
        behind = left * grad[:, 3]  # by the light that passes each pixel's spans, so far the last
        _by_image(_backward, ctx.area, spans, widths, pixels, grad[:, :3].contiguous(), ends, left, behind, by_spans)
        return by_spans, None, None, None, None


def _by_image(
    loop: Callable[..., None], area: int, spans: Tensor, widths: Tensor, pixels: Tensor, *rest: Tensor
) -> None:
    """Runs a loop on the spans of one image after another; what it writes lies apart for every image."""
    images = torch.div(pixels, area, rounding_mode="floor")
    bounds = torch.searchsorted(images, torch.arange(int(images[-1]) + 2 if len(images) else 1)).tolist()
    arrays = [tensor.detach().contiguous().numpy() for tensor in (spans, widths, pixels)] + [t.numpy() for t in rest]
    spread(partial(loop, start, stop, *arrays) for start, stop in pairwise(bounds))


@kernel
def _forward(start, stop, spans, widths, pixels, blended, ends):  # type: ignore[no-untyped-def]
    """Adds spans `start` to `stop - 1` to blended (p, 4), RGB and transmittance; notes where a pixel is finished."""
    for s in range(start, stop):
        slope, shift, vertical, opacity = spans[s, 0], spans[s, 1], spans[s, 2], spans[s, 3]
        for column in range(widths[s]):
            p = pixels[s] + column
            if ends[p] < s:
                continue
            u = spans.dtype.type(column) * slope + shift
            alpha = min(opacity * np.exp(-u * u - vertical), spans.dtype.type(MAX_ALPHA))
            before = blended[p, 3]
            after = before * (1 - alpha)
            if after < MIN_TRANSMITTANCE:
                ends[p] = s
                continue
            for k in range(3):
                blended[p, k] += before * alpha * spans[s, 4 + k]
            blended[p, 3] = after


@kernel
def _backward(start, stop, spans, widths, pixels, pulls, ends, left, behind, by_spans):  # type: ignore[no-untyped-def]
    """Adds to by_spans (s, 7), from the last span to the first; left (p) is the light after a span, behind (p) the sum
    of what the spans after it and the background contribute to the loss's derivative.
    """
    for s in range(stop - 1, start - 1, -1):
        slope, shift, vertical, opacity = spans[s, 0], spans[s, 1], spans[s, 2], spans[s, 3]
        by_slope = by_shift = by_log_sum = 0.0
        red = green = blue = 0.0
        for column in range(widths[s]):
            p = pixels[s] + column
            if ends[p] <= s:
                continue
            u = spans.dtype.type(column) * slope + shift
            alpha = min(opacity * np.exp(-u * u - vertical), spans.dtype.type(MAX_ALPHA))
            before = left[p] / (1 - alpha)
            weight = before * alpha
            red += weight * pulls[p, 0]
            green += weight * pulls[p, 1]
            blue += weight * pulls[p, 2]
            gain = pulls[p, 0] * spans[s, 4] + pulls[p, 1] * spans[s, 5] + pulls[p, 2] * spans[s, 6]
            if alpha < MAX_ALPHA:
                by_log = (before * gain - behind[p] / (1 - alpha)) * alpha
                by_log_sum += by_log
                by_shift += by_log * u
                by_slope += by_log * u * column
            behind[p] += weight * gain
            left[p] = before
        by_spans[s, 0], by_spans[s, 1] = -2 * by_slope, -2 * by_shift
        by_spans[s, 2], by_spans[s, 3] = -by_log_sum, by_log_sum / opacity
        by_spans[s, 4], by_spans[s, 5], by_spans[s, 6] = red, green, blue
