"""The published model's sizes, and a folder of its layout with random weights: what can be tried without the weights.

Which options the authors' own files state is not known; those here give the published tensors (docs/model.md,
section 1).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ss4d.stages.model_folder import DINOV2_FILE, DINOV2_NAME
from ss4d.stages.nn.checkpoint import build_network
from ss4d.stages.nn.image_encoders import DINOV2_VITL14_REG, VisionTransformer, VisionTransformerArgs
from ss4d.stages.nn.occupancy import SparseStructureDecoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.weights import DINOV2_HUB_NAMES, HasComputed, dinov2_from_hub

Changes = Mapping[str, Mapping[str, Any]]  # to the options of a role's network
VOXELS = 20_000  # of a frame, as an object has on the published grid


@dataclass(frozen=True)
class PublishedNetwork:
    """A network as the published folder has it.

    Attributes:
        reference: where it lies in the folder, without the suffixes of its files.
        name: of its class.
        args: the options of its description.
    """

    reference: str
    name: str
    args: Mapping[str, Any]


_FLOW = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 16,
    "mlp_ratio": 4,
    "pe_mode": "rope_t",
    "qk_rms_norm": True,
    "expand_self_attn": True,
    "use_fp16": True,
}
PUBLISHED: Mapping[str, PublishedNetwork] = {
    STRUCTURE_FLOW: PublishedNetwork(
        "ckpts/ss_flow_video_4d",
        "SparseStructureFlow4DModel",
        _FLOW | {"resolution": 16, "patch_size": 1, "window_size": 8},
    ),
    STRUCTURE_DECODER: PublishedNetwork(
        "ckpts/ss_dec_conv3d_16l8_fp16",
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 2,
            "num_res_blocks_middle": 2,
            "channels": [512, 128, 32],
            "use_fp16": True,
        },
    ),
    LATENT_FLOW: PublishedNetwork(
        "ckpts/slat_flow_video_4d",
        "ElasticSLatFlow4DModel",
        _FLOW
        | {
            "resolution": 64,
            "patch_size": 2,
            "num_io_res_blocks": 2,
            "io_block_channels": [128],
            "io_block_channels_t": [1024],
            "conv_type": "3D_1D",
        },
    ),
    GAUSSIAN_DECODER: PublishedNetwork(
        "ckpts/slat_dec_gs_4d",
        "ElasticSLatGaussianDecoder",
        {
            "resolution": 64,
            "model_channels": 768,
            "latent_channels": 8,
            "num_blocks": 12,
            "num_heads": 12,
            "mlp_ratio": 4,
            "attn_mode": "swin",
            "window_size": 8,
            "pe_mode": "rope_t",
            "expand_self_attn": True,
            "use_fp16": True,
            "representation_config": {
                "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
                "perturb_offset": True,
                "voxel_size": 1.5,
                "num_gaussians": 32,
                "2d_filter_kernel_size": 0.1,
                "3d_filter_kernel_size": 0.0009,
                "scaling_bias": 0.004,
                "opacity_bias": 0.1,
                "scaling_activation": "softplus",
            },
        },
    ),
}
_ENCODER = "ckpts/image_encoder"
_SAMPLER = {
    "name": "FlowEulerGuidanceIntervalSampler",
    "args": {"sigma_min": 1e-5},
    "params": {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
}


def write_random_model(
    folder: Path,
    *,
    seed: int,
    voxels: int = VOXELS,
    changes: Changes | None = None,
    encoder: VisionTransformerArgs | None = None,
) -> Path:
    """Writes a model folder of the published layout whose weights are random, in half precision.

    Networks are made one tensor at a time; the largest file is in memory as a whole, once.

    Args:
        folder: is made.
        seed: of the weights.
        voxels: about so many are occupied in a frame, in lumps.
        changes: to the published options, for smaller networks.
        encoder: an image encoder that the folder holds itself, in place of DINOv2, which the published one names.

    Returns:
        The weights of the image encoder: of DINOv2, a file as the hub has it, which `image_encoder` is to name.
    """
    changes = changes or {}
    generator = torch.Generator().manual_seed(seed)
    for role, network in PUBLISHED.items():
        args = {**network.args, **changes.get(role, {})}
        path = folder / network.reference
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".json").write_text(json.dumps({"name": network.name, "args": args}, indent=1))
        weights = path.with_name(path.name + ".safetensors")
        with torch.device("meta"):
            module = build_network(network.name.removeprefix("Elastic"), args, TORCH_OPS)
        state = _random(module, generator)
        if role in (STRUCTURE_FLOW, LATENT_FLOW):  # velocities that leave the noise as it is, nearly
            state["out_layer.weight"] /= 64
        if role == STRUCTURE_DECODER:
            _occupy(state, args, voxels, generator)
        save_file(state, weights)
    content = {
        "name": "TrellisVideoTo4DPipeline",
        "args": {
            "models": {role: network.reference for role, network in PUBLISHED.items()},
            "sparse_structure_sampler": _SAMPLER,
            "slat_sampler": _SAMPLER,
            "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
            IMAGE_ENCODER: DINOV2_NAME if encoder is None else _ENCODER,
        },
    }
    (folder / "pipeline.json").write_text(json.dumps(content, indent=1))
    with torch.device("meta"):
        module = VisionTransformer(encoder or DINOV2_VITL14_REG)
    state = _random(module, generator)
    if encoder is None:
        weights = folder / DINOV2_FILE
        save_file(_to_hub(state), weights)
    else:
        weights = folder / f"{_ENCODER}.safetensors"
        weights.with_suffix(".json").write_text(json.dumps({"name": "VisionTransformer", "args": asdict(encoder)}))
        save_file(state, weights)
    return weights


def _random(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Tensors for a network on the meta device, in half precision: weights that keep the size of what passes."""
    state = {name: make() for name, make in module.computed().items()} if isinstance(module, HasComputed) else {}
    for name, tensor in module.state_dict().items():
        if name in state:
            continue
        if tensor.ndim == 1 or name.endswith(".gamma"):
            state[name] = torch.zeros(tensor.shape) if name.endswith("bias") else torch.ones(tensor.shape)
        else:
            state[name] = torch.randn(tensor.shape, generator=generator) / math.sqrt(tensor[0].numel())
        state[name] = state[name].half()
    return state


@torch.no_grad()
def _occupy(state: dict[str, Tensor], args: Mapping[str, Any], voxels: int, generator: torch.Generator) -> None:
    """Shifts the last bias so that noise decodes to about so many cells, whose neighbors are mostly alike."""
    for name, tensor in state.items():
        if name.startswith("blocks.") and name.endswith(".conv.weight"):  # an upsampler: all eight children alike
            state[name] = tensor[: len(tensor) // 8].repeat_interleave(8, dim=0)
        if name.endswith(".conv2.weight"):  # what residual blocks add makes neighbors differ
            state[name] = tensor / 8
    center = torch.zeros(3, 3, 3)
    center[1, 1, 1] = 1
    state["out_layer.2.weight"] *= center
    decoder = build_network("SparseStructureDecoder", args, TORCH_OPS)
    assert isinstance(decoder, SparseStructureDecoder)
    decoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    side = 16
    logits = decoder(torch.randn(1, args["latent_channels"], side, side, side, generator=generator)).flatten()
    last = "out_layer.2.bias"
    state[last] = state[last] - logits.sort(descending=True).values[min(voxels, len(logits) - 1)].half()


def _to_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's tensors under the names that the hub's file gives them."""
    renamed: dict[str, Tensor] = {}
    for own, tensor in state.items():
        name = own
        for hub, ours in reversed(DINOV2_HUB_NAMES):
            name = name.replace(ours, hub) if ours else name
        if name.endswith(("_token", "_tokens")):
            name = f"embeddings.{name}"
        if ".attn.qkv." not in name:
            renamed[name] = tensor
            continue
        for part, share in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = share.clone()
    assert dinov2_from_hub(renamed).keys() == state.keys(), "the names are those that are understood"
    return renamed
