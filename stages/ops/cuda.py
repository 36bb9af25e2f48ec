"""The same kernels as in `ss4d.stages.ops.backend`, on xformers, spconv and gsplat; the only file that imports those.

Rows and coordinates are as in the torch kernels: (b, t, x, y, z) sorted, kernels (C_out, k..., C_in) over (t, x, y, z).
Why the CPU has kernels of its own: docs/model.md, section 11.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.ops.attention import AttentionPlan, attention, gather
from ss4d.stages.ops.backend import Ops
from ss4d.stages.ops.conv import kernel_extents
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.rasterize import BLACK, MIP_SPLATTING, NEAR, Color, Rasterize, ScreenFilter
from ss4d.stages.types import Camera, GaussianClip


def cuda_ops() -> Ops:
    """Kernels for NVIDIA GPUs.

    Raises:
        ModelError: if a package is not installed.
    """
    fmha, spconv, gsplat = (_package(name) for name in ("xformers.ops.fmha", "spconv.pytorch", "gsplat"))
    return Ops(attention=_attention(fmha), conv=sparse_convolution(spconv), rasterize=_rasterize(gsplat))


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"--device cuda needs the package {name.split('.')[0]} ({error}); install the project with the extra "
            f"'cuda', or use --device cpu"
        ) from error


def _attention(fmha: Any) -> Callable[[Tensor, Tensor, Tensor, AttentionPlan], Tensor]:
    """Ragged groups in one call; equal ones go to torch's attention, which then needs one call too."""
    masks: WeakKeyDictionary[AttentionPlan, Any] = WeakKeyDictionary()

    def ragged_attention(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
        full = [bucket for bucket in plan.buckets if bucket.key]
        if len(full) < 2:
            return attention(q, k, v, plan)
        if plan not in masks:
            queries = [bucket.query for bucket in full for _ in range(bucket.count)]
            keys = [bucket.key for bucket in full for _ in range(bucket.count)]
            masks[plan] = fmha.attn_bias.BlockDiagonalMask.from_seqlens(queries, keys, device=q.device)
        q = gather(q, plan.query_order)
        k, v = (gather(x, plan.key_order).contiguous() for x in (k, v))
        rows = sum(bucket.count * bucket.query for bucket in full)  # those without keys follow
        out = fmha.memory_efficient_attention(q[None, :rows].contiguous(), k[None], v[None], attn_bias=masks[plan])
        return gather(functional.pad(out[0], (0, 0, 0, 0, 0, len(q) - rows)), plan.inverse)

    return ragged_attention


def sparse_convolution(spconv: Any) -> Callable[[Tensor, Sites, Tensor, Tensor], Tensor]:
    """Submanifold convolution on the module `spconv.pytorch`; its tables are kept with the sites, as ours are."""

    @cache
    def layer(kernel: tuple[int, ...], channels: int, out_channels: int) -> Any:
        kind = spconv.SubMConv3d if len(kernel) == 3 else spconv.SubMConv4d
        with torch.device("meta"):  # the weights come with each call
            return kind(channels, out_channels, kernel, bias=True, indice_key=str(kernel))

    def conv(feats: Tensor, sites: Sites, weight: Tensor, bias: Tensor) -> Tensor:
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
    """What spconv takes: (batch, cell...) int32, the grid's size, the batch; in space each frame is one of it."""
    sizes = (coords.amax(0) + 1).tolist() if len(coords) else [1] * coords.shape[1]
    if not spatial:
        return coords, sizes[1:], sizes[0]
    frame = coords[:, :1] * sizes[1] + coords[:, 1:2]
    return torch.cat([frame, coords[:, 2:]], dim=1), sizes[2:], sizes[0] * sizes[1]


def _rasterize(gsplat: Any) -> Rasterize:
    """The rasterizer on gsplat; it caps alpha at 0.999 instead of 0.99, else it draws what ours draws."""

    def rasterize(
        gaussians: GaussianClip,
        camera: Camera,
        *,
        background: Color = BLACK,
        screen_filter: ScreenFilter = MIP_SPLATTING,
    ) -> tuple[Tensor, Tensor]:
        device = torch.device("cuda")
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
            backgrounds=torch.tensor([background], dtype=torch.float32, device=device),
            rasterize_mode="antialiased" if screen_filter.compensate else "classic",
        )
        return rgb[0], alpha[0, ..., 0]

    return rasterize
