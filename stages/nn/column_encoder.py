"""An image encoder of convolutions: a U-net from an image to one token for each column of cells behind it.

For models whose grid has the input camera's axes: x and z are those of the image, and y leads into its depth, so the
column behind a pixel is known. A token holds features for every cell of its column, and `lifted` unfolds them.

Axes: t frames, s pixels, l tokens (columns, x slowest, z fastest), c channels, k features of a cell, x y z cells.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.args import at_least_one
from ss4d.stages.nn.norm import FINAL_EPS, layer_norm
from ss4d.stages.types import Axes

IMAGE_CHANNELS = 4  # RGB over black, then alpha
GROUPS = 8  # of normalized channels
CELL_VALUES = 10  # logit of being occupied; color, normal and offset as in the features of training clips


@dataclass(frozen=True, kw_only=True)
class ColumnEncoderArgs:
    """The sizes of a column encoder."""

    image_size: int  # pixels
    resolution: int  # cells of the grid along each axis, and columns along each side of the map
    cell_channels: int  # k
    channels: tuple[int, ...]  # of each level; each has half as many cells along a side as the one before
    patch_size: int = 2  # pixels along each side that become one cell of the first level
    num_blocks: int = 2  # of each level on the way down
    num_up_blocks: int = 1  # of each level on the way up
    axes: Literal["camera", "crop"] = "camera"  # of the grid (`ss4d.stages.data.axes`)

    @property
    def model_channels(self) -> int:
        """The width of a token."""
        return self.resolution * self.cell_channels


class Convolution(nn.Module):
    """A 3 x 3 convolution, whose kernels are kept as the rows of a matrix, for optimizers of matrices."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels * 9))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight.view(len(self.bias), -1, 3, 3), self.bias, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions, each after a norm and an activation, added to their input."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, in_channels), nn.GroupNorm(GROUPS, channels)
        self.conv1 = Convolution(in_channels, channels)
        self.conv2 = Convolution(channels, channels)
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


class ColumnEncoder(nn.Module):
    """Images to tokens, and tokens to what each cell is likely to hold."""

    image_channels = IMAGE_CHANNELS

    def __init__(self, args: ColumnEncoderArgs) -> None:
        super().__init__()
        at_least_one(
            args, "image_size", "resolution", "cell_channels", "patch_size", "num_blocks", "num_up_blocks", "channels"
        )
        depth = len(args.channels)
        sides = [args.image_size // (args.patch_size * 2**level) for level in range(depth)]
        if args.image_size % (args.patch_size * 2 ** (depth - 1)) or args.resolution not in sides:
            raise ModelError(
                f"a column encoder of {depth} levels halves images of {args.image_size} to {sides}, "
                f"but resolution is {args.resolution}"
            )
        if args.axes not in ("camera", "crop"):
            raise ModelError(f"the axes of a column encoder are the camera's or the crop's, got {args.axes!r}")
        if any(width % GROUPS for width in args.channels):
            raise ModelError(f"channels must be multiples of {GROUPS}, got {args.channels}")
        self.args = args
        self.axes: Axes = args.axes
        self.torso_dtype = torch.float32
        self.stem = nn.Conv2d(args.patch_size**2 * IMAGE_CHANNELS, args.channels[0], 3, padding=1)
        before = (args.channels[0], *args.channels[:-1])
        self.down_blocks = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(first, width), *(ResidualBlock(width, width) for _ in range(args.num_blocks - 1))
            )
            for first, width in zip(before, args.channels, strict=True)
        )
        kept = sides.index(args.resolution)
        self.up_blocks = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(args.channels[level + 1] + args.channels[level], args.channels[level]),
                *(ResidualBlock(args.channels[level], args.channels[level]) for _ in range(args.num_up_blocks - 1)),
            )
            for level in reversed(range(kept, depth - 1))
        )
        self.out_norm = nn.GroupNorm(GROUPS, args.channels[kept])
        self.out = nn.Conv2d(args.channels[kept], args.model_channels, 1)
        self.cells = nn.Linear(args.cell_channels, CELL_VALUES)
        self.pitch = nn.Linear(args.channels[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (t, l, c), normalized over channels, of images (t, 4, s, s) with values 0 to 1.

        Raises:
            ModelError: if s is not the size that the network was made for.
        """
        return self.tokens(images)[0]

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens as above, and the camera's estimated pitch (t) above the horizon, in radians."""
        size = self.args.image_size
        if images.shape[1:] != (IMAGE_CHANNELS, size, size):
            raise ModelError(f"the image encoder takes RGBA images of {size} x {size}, got {tuple(images.shape)}")
        x = functional.pixel_unshuffle(images - 0.5, self.args.patch_size).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        levels: list[Tensor] = []
        for number, blocks in enumerate(self.down_blocks):
            x = blocks(functional.avg_pool2d(x, 2) if number else x)
            levels.append(x)
        pitch: Tensor = self.pitch(x.mean((2, 3)).float())[:, 0]
        levels.pop()
        for block in self.up_blocks:
            x = block(torch.cat([functional.interpolate(x, scale_factor=2), levels.pop()], 1))
        x = self.out(functional.silu(self.out_norm(x))).float()
        # Rows of an image run down, z runs up.
        tokens = x.flip(2).permute(0, 3, 2, 1).flatten(1, 2)
        return layer_norm(tokens, FINAL_EPS), pitch


def guessed(encoder: object, tokens: Tensor) -> Tensor:
    """The logit (n, x, y, z) that each cell is occupied, by tokens (n, l, c) alone; empty if they do not tell."""
    if not isinstance(encoder, ColumnEncoder):
        return tokens.new_zeros(0, 0, 0, 0)
    weight, bias = (values[:1].to(tokens.dtype) for values in (encoder.cells.weight, encoder.cells.bias))
    return functional.linear(lifted(tokens, encoder.args.resolution), weight, bias)[..., 0]


def lifted(tokens: Tensor, resolution: int) -> Tensor:
    """The features (..., x, y, z, k) of every cell that tokens (..., l, c) of its column hold."""
    columns = tokens.reshape(*tokens.shape[:-2], resolution, resolution, resolution, -1)  # (..., x, z, y, k)
    return columns.movedim(-3, -2)
