"""Hide parts of input frames, as if something had passed in front of the object and been cut out with it.

Axes: b clip, t frame, s pixel.
"""

import torch
from torch import Generator, Tensor

HIDDEN_CLIPS, HIDDEN_FRAMES = 0.4, 0.5  # share of clips, and of their frames, in which something is hidden
RADII = (0.08, 0.3)  # half the height and width of what is hidden, in sides of the image


def occlude(frames: Tensor, generator: Generator) -> Tensor:
    """RGBA frames (b, t, s, s, 4), in some of which a rectangle or an ellipse is made transparent.

    What hides the object in a clip keeps its shape and size, and moves along a line through the object's middle part.
    """
    b, t, s = frames.shape[:3]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=generator)

    when = (uniform(1) < HIDDEN_CLIPS) & (uniform(t) < HIDDEN_FRAMES)
    radius = RADII[0] + (RADII[1] - RADII[0]) * uniform(1, 2)
    start, end = (0.2 + 0.6 * uniform(2, 1, 2)).unbind(1)
    center = start + (end - start) * torch.linspace(0, 1, t)[:, None]  # (b, t, 2)
    round_ones = uniform(1, 1, 1) < 0.5
    pixels = (torch.arange(s, device=frames.device) + 0.5) / s
    away = ((pixels - center.to(frames.device)[..., None]) / radius.to(frames.device)[..., None]).square()
    y, x = away[:, :, 0, :, None], away[:, :, 1, None, :]
    inside = torch.where(round_ones.to(frames.device), y + x < 1, torch.maximum(y, x) < 1)
    hidden = inside & when.to(frames.device)[:, :, None, None]
    return frames * ~hidden[..., None]
