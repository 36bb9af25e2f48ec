"""U^2-Net's small model, u2netp: nested U-shaped blocks of 3x3 convolutions; images are (frame, channel, y, x).

The architecture is that of Qin et al., "U^2-Net: Going deeper with nested U-structure for salient object detection"
(2020). Normalization is folded into the convolutions, as in the published ONNX file.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDE, NARROW = 64, 16  # channels between blocks and within them
DEPTHS = (7, 6, 5, 4)  # of the blocks on the way down; two more keep their resolution
FLAT = 4  # depth of such a block


class U2NetP(nn.Module):
    """How strongly each pixel draws the eye."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Block(depth, 3 if k == 0 else WIDE) for k, depth in enumerate(DEPTHS)]
        self.down = nn.ModuleList([*blocks, Block(FLAT, WIDE, flat=True), Block(FLAT, WIDE, flat=True)])
        risers = [Block(depth, 2 * WIDE) for depth in reversed(DEPTHS)]
        self.up = nn.ModuleList([Block(FLAT, 2 * WIDE, flat=True), *risers])
        self.sides = nn.ModuleList([nn.Conv2d(WIDE, 1, 3, padding=1) for _ in self.down])
        self.fuse = nn.Conv2d(len(self.sides), 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Saliency (n, h, w) from 0 to 1 of images (n, 3, h, w), float32, normalized as ImageNet's are."""
        levels: list[Tensor] = []
        for block in self.down:
            images = block(_halved(images) if levels else images)
            levels.append(images)
        for level, block in zip(reversed(range(len(self.up))), self.up, strict=True):
            levels[level] = block(torch.cat([_as_large(levels[level + 1], levels[level]), levels[level]], 1))
        sides = [side(level) for side, level in zip(self.sides, levels, strict=True)]
        fused: Tensor = self.fuse(torch.cat([_as_large(side, sides[0]) for side in sides], 1))
        return fused.sigmoid()[:, 0]


class Block(nn.Module):
    """A U of its own: `depth` convolutions down, one less up, and what it began with added.

    Args:
        depth: how many resolutions it sees, the last of them by dilation.
        channels: of what it is given.
        flat: whether it sees all of them by dilation, at one resolution.
    """

    def __init__(self, depth: int, channels: int, *, flat: bool = False) -> None:
        super().__init__()
        spread = [2**k if flat else 1 + (k == depth - 1) for k in range(depth)]
        self.flat = flat
        self.enter = _conv(channels, WIDE, 1)
        self.down = nn.ModuleList([_conv(NARROW if k else WIDE, NARROW, spread[k]) for k in range(depth)])
        self.up = nn.ModuleList([_conv(2 * NARROW, NARROW if k else WIDE, spread[k]) for k in range(depth - 1)])

    def forward(self, images: Tensor) -> Tensor:
        """From (n, channels, h, w) to (n, WIDE, h, w)."""
        entered = functional.relu_(self.enter(images))
        levels = [entered]
        for k, conv in enumerate(self.down):
            pooled = not self.flat and 0 < k < len(self.down) - 1
            levels.append(functional.relu_(conv(_halved(levels[-1]) if pooled else levels[-1])))
        found = levels.pop()
        for level, conv in zip(reversed(levels[1:]), reversed(self.up), strict=True):
            found = functional.relu_(conv(torch.cat([_as_large(found, level), level], 1)))
        return found.add_(entered)


def _conv(given: int, made: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=dilation, dilation=dilation)


def _halved(images: Tensor) -> Tensor:
    return functional.max_pool2d(images, 2, ceil_mode=True)


def _as_large(images: Tensor, other: Tensor) -> Tensor:
    same = images.shape[2:] == other.shape[2:]
    return images if same else functional.interpolate(images, size=other.shape[2:], mode="bilinear")
