"""The occupancy autoencoder: an object's grid of cells to a small dense latent and back (docs/model.md, section 6).

Axes: b frames (clips are stacked, frames inner), c channels, x y z cells. Every frame is coded alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.args import at_least_one, one_of
from ss4d.stages.nn.precision import cast_weights

# Bounds memory: a frame at full size fills a hundred megabytes. Torch's fast convolution on a CPU wants more than one.
FRAMES_AT_ONCE = 4
NO_GUESS = torch.zeros(0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class SparseStructureDecoderArgs:
    """The options published beside a decoder's weights; `channels` runs from the latent's grid to the finest.

    `use_fp16` states how the published run computed; here the caller's `set_torso_dtype` decides.
    """

    out_channels: int
    latent_channels: int
    num_res_blocks: int
    channels: tuple[int, ...]
    num_res_blocks_middle: int = 2
    norm_type: str = "layer"
    use_fp16: bool = False


@dataclass(frozen=True, kw_only=True)
class SparseStructureEncoderArgs:
    """The options published beside an encoder's weights; `channels` runs from the finest grid to the latent's.

    `use_fp16` states how the published run computed; here the caller's precision decides.
    """

    in_channels: int
    latent_channels: int
    num_res_blocks: int
    channels: tuple[int, ...]
    num_res_blocks_middle: int = 2
    norm_type: str = "layer"
    use_fp16: bool = False


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a (b, c, x, y, z) grid; float32 inside, the rows' precision out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1).float()).movedim(-1, 1).to(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions, each after norm and SiLU, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.norm2 = ChannelLayerNorm(channels)
        self.conv1 = _conv3(channels, channels)
        self.conv2 = _conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return x + h


class Downsample(nn.Module):
    """Halves the grid with a strided convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(x)
        return halved


class Upsample(nn.Module):
    """Doubles the grid: a convolution to eight times the channels, spread over the eight children of each cell."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _conv3(in_channels, out_channels * 8)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x))


def pixel_shuffle(x: Tensor) -> Tensor:
    """Channels (c, 2, 2, 2), offsets in x, y, z, become cells: (b, 8c, x, y, z) to (b, c, 2x, 2y, 2z)."""
    b, c, nx, ny, nz = x.shape
    x = x.reshape(b, c // 8, 2, 2, 2, nx, ny, nz)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // 8, 2 * nx, 2 * ny, 2 * nz)


class SparseStructureDecoder(nn.Module):
    """Occupancy latent to the logits of the cells."""

    def __init__(self, args: SparseStructureDecoderArgs) -> None:
        super().__init__()
        _check(args)
        self.args = args
        channels, last = args.channels, len(args.channels) - 1
        self.input_layer = _conv3(args.latent_channels, channels[0])
        self.middle_block = _residual_blocks(channels[0], args.num_res_blocks_middle)
        self.blocks = nn.Sequential()
        for level, width in enumerate(channels):
            self.blocks.extend(_residual_blocks(width, args.num_res_blocks))
            if level < last:
                self.blocks.append(Upsample(width, channels[level + 1]))
        self.out_layer = _out_layer(channels[-1], args.out_channels)
        self.torso_dtype = torch.float32

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Runs all but the first and the last layer in `dtype` from now on; norms stay in float32."""
        self.torso_dtype = dtype
        cast_weights(self.middle_block, dtype)
        cast_weights(self.blocks, dtype)

    def forward(self, latent: Tensor) -> Tensor:
        """Logits (b, out_channels, R, R, R) of a latent (b, latent_channels, r, r, r).

        The grid doubles between levels: R = r 2^(levels - 1).
        """
        h = self.input_layer(latent).to(self.torso_dtype)
        logits: Tensor = self.out_layer(self.blocks(self.middle_block(h)).to(latent.dtype))
        return logits


class SparseStructureEncoder(nn.Module):
    """Occupancy of the cells to the latent's mean and log-variance."""

    def __init__(self, args: SparseStructureEncoderArgs) -> None:
        super().__init__()
        _check(args)
        self.args = args
        channels, last = args.channels, len(args.channels) - 1
        self.input_layer = _conv3(args.in_channels, channels[0])
        self.blocks = nn.Sequential()
        for level, width in enumerate(channels):
            self.blocks.extend(_residual_blocks(width, args.num_res_blocks))
            if level < last:
                self.blocks.append(Downsample(width, channels[level + 1]))
        self.middle_block = _residual_blocks(channels[-1], args.num_res_blocks_middle)
        self.out_layer = _out_layer(channels[-1], 2 * args.latent_channels)

    def forward(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (b, latent_channels, r, r, r) each, of an occupancy (b, in_channels, R, R, R).

        The grid halves between levels: r = R / 2^(levels - 1).
        """
        moments: Tensor = self.out_layer(self.middle_block(self.blocks(self.input_layer(occupancy))))
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar


def cell_logits(decoder: SparseStructureDecoder, latent: Tensor, guess: Tensor) -> Tensor:
    """Logits (t, R, R, R) that cells are occupied, for `latent` (t, c, r, r, r).

    Where the image encoder has a `guess` (t, R, R, R) of its own, they are the mean of that and of what is decoded. The
    guess sees every cell, but each frame alone; the latent holds less of a frame, and agrees with those beside it.
    """
    decoded: Tensor = decoder(latent)[:, 0]
    return (decoded + guess.to(decoded)) / 2 if len(guess) else decoded


def occupied_cells(decoder: SparseStructureDecoder, latent: Tensor, guess: Tensor = NO_GUESS) -> tuple[Tensor, int]:
    """Cells (0, t, x, y, z), int32, sorted, whose logit is above 0, as in `cell_logits`; the grid's size.

    Raises:
        ModelError: logits are not numbers, of which none is above 0.
    """
    coords = []
    for start in range(0, len(latent), FRAMES_AT_ONCE):
        some = slice(start, start + FRAMES_AT_ONCE)
        logits = cell_logits(decoder, latent[some], guess[some])
        if logits.isnan().any():
            raise ModelError(
                "which cells are occupied came out as not-a-number (NaN): weights may be damaged, or values overflow "
                "float16, which --set precision=bfloat16 would show"
            )
        cells = torch.nonzero(logits > 0).int().cpu()
        coords.append(torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1))
        coords[-1][:, 1] += start
    return torch.cat(coords), logits.shape[-1]


def _conv3(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)


def _residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def _out_layer(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ChannelLayerNorm(in_channels), nn.SiLU(), _conv3(in_channels, out_channels))


def _check(args: SparseStructureDecoderArgs | SparseStructureEncoderArgs) -> None:
    one_of("norm_type", args.norm_type, ("layer",))
    at_least_one(args, "latent_channels", "num_res_blocks", "channels", "num_res_blocks_middle")
    if not args.channels:
        raise ModelError("option channels is empty, but must name the channels of at least one level")
