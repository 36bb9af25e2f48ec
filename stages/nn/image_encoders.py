"""The image encoder: a vision transformer of DINOv2's design, with register tokens (docs/model.md, section 3).

Axes: t frames, l tokens (class, registers, then patches row by row), c channels, s pixels. Parameters carry
the names of the published DINOv2 checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.args import at_least_one
from ss4d.stages.nn.norm import FINAL_EPS, LayerNorm, layer_norm
from ss4d.stages.nn.precision import cast_weights
from ss4d.stages.types import Axes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageEncoder(Protocol):
    """What turns images to tokens."""

    image_channels: int  # that it takes: 3 for RGB over black, 4 with alpha besides
    axes: Axes  # of the grid that its tokens speak of
    args: Any  # has `image_size`, their side in pixels, and `model_channels`, the width of a token

    def __call__(self, images: Tensor) -> Tensor:
        """Tokens (t, l, c), normalized over channels, of images (t, image_channels, s, s) with values 0 to 1."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def eval(self) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class VisionTransformerArgs:
    """The sizes of an image encoder."""

    image_size: int  # pixels; position embeddings fit this size alone
    patch_size: int  # pixels
    model_channels: int
    num_blocks: int
    num_heads: int
    num_registers: int = 4
    mlp_ratio: float = 4


DINOV2_VITL14_REG = VisionTransformerArgs(
    image_size=518, patch_size=14, model_channels=1024, num_blocks=24, num_heads=16, num_registers=4
)


class PatchEmbed(nn.Module):
    """Each patch of an image, flattened by a strided convolution to one token."""

    def __init__(self, patch_size: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.proj(images)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Every token of an image attends to all of them."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """A learned gain per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.to(x.dtype)


class Block(nn.Module):
    """Attention and MLP, each normed before, scaled after, and added to its input."""

    def __init__(self, channels: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = Attention(channels, num_heads)
        self.ls1 = LayerScale(channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.ls2 = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = h + self.ls2(self.mlp(self.norm2(h)))
        return out


class VisionTransformer(nn.Module):
    """Images to tokens, taken before `norm`; it and `mask_token` are there to complete the published layout."""

    image_channels = 3
    axes: Axes = "world"

    def __init__(self, args: VisionTransformerArgs) -> None:
        super().__init__()
        at_least_one(args, "image_size", "patch_size", "model_channels", "num_heads", "mlp_ratio")
        if args.image_size % args.patch_size:
            raise ModelError(f"image_size {args.image_size} must be a multiple of patch_size {args.patch_size}")
        if args.model_channels % args.num_heads:
            raise ModelError(f"model_channels {args.model_channels} must be a multiple of num_heads {args.num_heads}")
        self.args = args
        self.torso_dtype = torch.float32
        c, num_patches = args.model_channels, (args.image_size // args.patch_size) ** 2
        self.cls_token = _learned(1, 1, c)
        self.pos_embed = _learned(1, 1 + num_patches, c)
        self.register_tokens = _learned(1, args.num_registers, c)
        self.mask_token = _learned(1, c)
        self.patch_embed = PatchEmbed(args.patch_size, c)
        self.blocks = nn.Sequential(*(Block(c, args.num_heads, args.mlp_ratio) for _ in range(args.num_blocks)))
        self.norm = LayerNorm(c)

    def set_torso_dtype(self, dtype: torch.dtype) -> None:
        """Runs the blocks in `dtype` from now on; norms and embeddings stay in float32."""
        self.torso_dtype = dtype
        cast_weights(self.blocks, dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (t, l, c), normalized over channels, of images (t, 3, s, s) with values 0 to 1.

        Raises:
            ModelError: if s is not the size that the position embeddings were made for.
        """
        size = self.args.image_size
        if images.shape[1:] != (3, size, size):
            raise ModelError(f"the image encoder takes images of {size} x {size}, got {tuple(images.shape)}")
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        t = len(images)
        x = torch.cat([self.cls_token.expand(t, -1, -1), self.patch_embed((images - mean) / std)], dim=1)
        x = x + self.pos_embed
        # Registers have no place in the image: they join after the positions are added.
        x = torch.cat([x[:, :1], self.register_tokens.expand(t, -1, -1), x[:, 1:]], dim=1)
        x = self.blocks(x.to(self.torso_dtype))
        return layer_norm(x.float(), FINAL_EPS)


def fit_images(images: Tensor, size: int) -> Tensor:
    """Images (t, c, s, s) in 0 to 1 as (t, c, `size`, `size`); not resampled if s is `size`."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _learned(*shape: int) -> nn.Parameter:
    # Of the ways to draw these, one that the meta device knows without importing the compiler, which takes seconds.
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
