"""Kernels of packages for GPUs, called as those in `ss4d.stages.ops.backend`; the only file that imports the packages.

Rows and coordinates are as in the torch kernels: (b, t, x, y, z) sorted, kernels (C_out, k..., C_in) over (t, x, y, z).
Each function gives a kernel, or raises what its package raises when it is imported: any exception at all.
Why the CPU has kernels of its own: docs/model.md, section 11.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import Attention
from ss4d.stages.ops.conv import Convolution, kernel_extents
from ss4d.stages.ops.coords import PerAxis, Sites
from ss4d.stages.ops.pooling import NOT_MERGED, pooling
from ss4d.stages.ops.rasterize import BLACK, MIP_SPLATTING, NEAR, Color, Rasterize, ScreenFilter
from ss4d.stages.ops.triangles import Floats, Integers, Seen, SeeTriangles
from ss4d.stages.ops.varlen import FLASH_CHANNELS, HALF, Packed, in_one_call
from ss4d.stages.types import Camera, GaussianClip

# By the names that they are imported by.
PACKAGES = ("flash_attn_interface", "xformers", "spconv", "gsplat", "nvdiffrast", "kaolin")


def flash3_attention() -> Attention:
    """FlashAttention 3: every attention in half precision, that of one large group as well."""
    flash = import_module("flash_attn_interface")

    def attend(q: Tensor, k: Tensor, v: Tensor, groups: Packed) -> Tensor:
        longest = max(groups.queries), max(groups.keys)
        out = flash.flash_attn_varlen_func(q, k, v, groups.query_starts, groups.key_starts, *longest)
        result: Tensor = out if isinstance(out, Tensor) else out[0]  # some versions give the sums of exponentials, too
        return result

    return in_one_call(attend, HALF, least=1, multiple=FLASH_CHANNELS)


def xformers_attention() -> Attention:
    """Groups of unequal length by xformers; those of one size go to torch's attention, which then needs one call."""
    fmha = import_module("xformers.ops.fmha")
    masks: WeakKeyDictionary[Packed, Any] = WeakKeyDictionary()

    def attend(q: Tensor, k: Tensor, v: Tensor, groups: Packed) -> Tensor:
        if groups not in masks:
            mask = fmha.attn_bias.BlockDiagonalMask
            masks[groups] = mask.from_seqlens(groups.queries, groups.keys, device=q.device)
        out: Tensor = fmha.memory_efficient_attention(q[None], k[None], v[None], attn_bias=masks[groups])
        return out[0]

    return in_one_call(attend, {torch.float32, *HALF})


def spconv_convolution() -> Convolution:
    """Submanifold convolution by spconv; its tables are kept with the sites, as ours are."""
    spconv = import_module("spconv.pytorch")

    @cache
    def layer(kernel: tuple[int, ...], channels: int, out_channels: int) -> Any:
        kind = spconv.SubMConv3d if len(kernel) == 3 else spconv.SubMConv4d
        with torch.device("meta"):  # the weights come with each call
            return kind(channels, out_channels, kernel, bias=True, indice_key=str(kernel))

    def conv(feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor, stride: PerAxis = NOT_MERGED) -> Tensor:
        if stride != NOT_MERGED:
            feats = feats.index_select(0, pooling(sites, stride).parent)
        extents = kernel_extents(weight)
        spatial = extents[0] == 1
        indices, shape, count = sites.derived(("spconv indices", spatial), lambda s: _indices(s.coords, spatial))
        tables = sites.derived(("spconv tables", spatial), lambda _: dict[str, Any]())
        kernel = extents[1:] if spatial else extents
        module = layer(kernel, feats.shape[1], len(weight)).train(torch.is_grad_enabled())
        weights = {"weight": weight.view(len(weight), *kernel, -1), "bias": bias}
        x = spconv.SparseConvTensor(feats.contiguous(), indices, shape, count, indice_dict=tables)
        out = torch.func.functional_call(module, weights, (x,))
        tables.update(out.indice_dict)
        features: Tensor = out.features
        return features

    return conv


def _indices(coords: Tensor, spatial: bool) -> tuple[Tensor, list[int], int]:
    """What spconv takes: (batch, cell...) int32, the grid's size, the batch; in space each frame is one of it.

    It reads the rows as they lie in memory, whatever the tensor says of its strides: they must be contiguous.
    """
    sizes = (coords.amax(0) + 1).tolist() if len(coords) else [1] * coords.shape[1]
    if not spatial:
        return coords.contiguous(), sizes[1:], sizes[0]
    frame = coords[:, :1] * sizes[1] + coords[:, 1:2]
    return torch.cat([frame, coords[:, 2:]], dim=1).contiguous(), sizes[2:], sizes[0] * sizes[1]


def gsplat_rasterizer(device: torch.device) -> Rasterize:
    """The rasterizer of gsplat; it caps alpha at 0.999 instead of 0.99, else it draws what ours draws.

    Raises:
        ModelError: if its kernels were not compiled.
    """
    gsplat = import_module("gsplat")
    if import_module("gsplat.cuda._backend")._C is None:
        raise ModelError("has no kernels: it compiles them when it is imported, which takes nvcc")

    def rasterize(
        gaussians: GaussianClip,
        camera: Camera,
        *,
        background: Color = BLACK,
        screen_filter: ScreenFilter = MIP_SPLATTING,
    ) -> tuple[Tensor, Tensor]:
        paint = torch.tensor(background, dtype=torch.float32, device=device)
        if not len(gaussians.means):  # which its kernels were not made for
            return paint.repeat(camera.height, camera.width, 1), paint.new_zeros(camera.height, camera.width)
        lens = [[camera.focal, 0, camera.width / 2], [0, camera.focal, camera.height / 2], [0, 0, 1]]
        rgb, alpha, _ = gsplat.rasterization(
            means=gaussians.means.to(device),
            quats=gaussians.quats.to(device),
            scales=gaussians.scales.to(device),
            opacities=gaussians.opacities.to(device),
            colors=gaussians.colors.to(device).clamp(min=0),
            viewmats=torch.tensor([camera.world_to_camera], dtype=torch.float32, device=device),
            Ks=torch.tensor([lens], dtype=torch.float32, device=device),
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            eps2d=screen_filter.variance,
            backgrounds=paint[None],
            rasterize_mode="antialiased" if screen_filter.compensate else "classic",
        )
        return rgb[0], alpha[0, ..., 0]

    return rasterize


def nvdiffrast_triangles(device: torch.device) -> SeeTriangles:
    """The rasterizer of nvdiffrast, on CUDA; it rounds corners to 16ths of a sample, else it sees what ours sees.

    Its license allows research and evaluation alone.
    """
    nvdiffrast = import_module("nvdiffrast.torch")
    context = nvdiffrast.RasterizeCudaContext(device=device)

    def see(points: Floats, faces: Integers, height: int, width: int) -> Seen:
        before = np.flatnonzero((points[faces, 2] > 0).all(axis=1))  # the camera, as ours leaves the others out
        if not len(before):
            return Seen.nothing(height, width)
        corners = torch.from_numpy(faces[before]).to(device)
        away = 1 / torch.from_numpy(points[:, 2]).to(device).clamp(min=1e-6)
        grid = -(-height // 8) * 8, -(-width // 8) * 8  # it takes whole tiles
        x, y = (2 * torch.from_numpy(points[:, k]).to(device) / grid[1 - k] - 1 for k in range(2))
        # Its clip space: what is nearer has a smaller third coordinate, and NEAR the least.
        clip = torch.stack([x * away, y * away, away - 2 * NEAR, away], dim=-1)
        out, _ = nvdiffrast.rasterize(context, clip[None], corners, grid)
        first, second, _, number = out[0, :height, :width].unbind(-1)
        hit, index = number > 0, (number.long() - 1).clamp(min=0)
        weights = torch.stack([first, second, 1 - first - second], dim=-1) * hit[..., None]
        depth = torch.where(hit, (weights * away[corners.long()][index]).sum(-1), torch.inf)
        face = np.where(hit.cpu().numpy(), before.astype(np.int32)[index.cpu().numpy()], np.int32(-1))
        return Seen(face, weights.cpu().numpy(), depth.cpu().numpy())

    return see


def flexicubes() -> Callable[[Floats], tuple[Floats, Integers]]:
    """Kaolin's FlexiCubes with the weights it begins with, which make it a dual marching cubes; on any device."""
    conversions = import_module("kaolin.ops.conversions")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extract = conversions.FlexiCubes(device=device)

    def surface(values: Floats) -> tuple[Floats, Integers]:
        x, y, z = values.shape
        places = torch.cartesian_prod(*(torch.arange(size, device=device) for size in (x, y, z)))
        first = torch.arange(x * y * z, device=device).view(x, y, z)[:-1, :-1, :-1].reshape(-1, 1)
        corners = first + torch.tensor([0, y * z, z, y * z + z, 1, y * z + 1, z + 1, y * z + z + 1], device=device)
        distances = torch.from_numpy(np.ascontiguousarray(values)).to(device).view(-1)
        vertices, faces, _ = extract(places.float(), distances, corners, [x - 1, y - 1, z - 1])
        return vertices.cpu().numpy(), faces.cpu().numpy().astype(np.int32)

    return surface
