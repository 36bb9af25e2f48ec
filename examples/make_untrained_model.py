"""Writes an untrained model folder at the bundled size: the published networks and file format, random weights.

Usage: python examples/make_untrained_model.py FOLDER [--seed N]

The occupancy decoder is set up so that random latents decode to one blob with about as many voxels as a real object
has: everything downstream then has as much to do as with trained weights.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stages.nn.occupancy import SparseStructureDecoder
from stages.ops.backend import TORCH_OPS
from stages.weights import NETWORKS, save_network

OCCUPIED_SHARE = 0.045  # of 32^3 cells: about 1,500 voxels a frame
NOTICE = "the bundled model is not trained yet: every stage is real, but the object it makes is noise"

IMAGE_CHANNELS = 192
NETWORK_ARGS: dict[str, tuple[str, dict[str, Any]]] = {
    "image_encoder": (
        "VisionTransformer",
        {"image_size": 128, "patch_size": 8, "model_channels": IMAGE_CHANNELS, "num_blocks": 3, "num_heads": 6},
    ),
    "sparse_structure_flow_model": (
        "SparseStructureFlow4DModel",
        {
            "resolution": 8,
            "in_channels": 8,
            "out_channels": 8,
            "model_channels": 192,
            "cond_channels": IMAGE_CHANNELS,
            "num_blocks": 5,
            "num_heads": 6,
            "mlp_ratio": 4,
            "patch_size": 2,
            "pe_mode": "rope_t",
            "qk_rms_norm": True,
            "expand_self_attn": True,
            "window_size": 16,
            "share_mod": True,
        },
    ),
    "sparse_structure_decoder": (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": (48, 32, 16),
        },
    ),
    "slat_flow_model": (
        "SLatFlow4DModel",
        {
            "resolution": 32,
            "in_channels": 8,
            "out_channels": 8,
            "model_channels": 128,
            "cond_channels": IMAGE_CHANNELS,
            "num_blocks": 3,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": 4,
            "num_io_res_blocks": 2,
            "io_block_channels": (32, 48),
            "io_block_channels_t": (128,),
            "pe_mode": "rope_t",
            "qk_rms_norm": True,
            "expand_self_attn": True,
            "conv_type": "3D_1D",
            "share_mod": True,
        },
    ),
    "slat_decoder_gs": (
        "SLatGaussianDecoder",
        {
            "resolution": 32,
            "model_channels": 128,
            "latent_channels": 8,
            "num_blocks": 4,
            "num_heads": 4,
            "mlp_ratio": 4,
            "attn_mode": "swin",
            "window_size": 8,
            "pe_mode": "rope_t",
            "expand_self_attn": True,
            "use_fp16": False,
            "representation_config": {
                "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
                "perturb_offset": True,
                "voxel_size": 1.5,
                "num_gaussians": 8,
                "2d_filter_kernel_size": 0.1,
                "3d_filter_kernel_size": 0.0009,
                "scaling_bias": 0.01,
                "opacity_bias": 0.1,
                "scaling_activation": "softplus",
            },
        },
    ),
}


def sampler(**params: Any) -> dict[str, Any]:
    """A sampler as a model folder describes it."""
    return {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5}, "params": params}


PIPELINE = {
    "name": "TrellisVideoTo4DPipeline",
    "args": {
        "models": {role: f"ckpts/{role}" for role in NETWORK_ARGS if role != "image_encoder"},
        "sparse_structure_sampler": sampler(steps=12, cfg_strength=3.0, cfg_interval=[0.5, 1.0], rescale_t=3.0),
        "slat_sampler": sampler(steps=8, cfg_strength=2.0, cfg_interval=[0.5, 1.0], rescale_t=1.0),
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
        "image_cond_model": "ckpts/image_encoder",
    },
}


@torch.no_grad()
def occupy_plausibly(decoder: SparseStructureDecoder, generator: torch.Generator) -> None:
    """Makes random latents decode to one lumpy blob away from the borders, of `OCCUPIED_SHARE` of the cells.

    The blob comes from what zero padding does to a constant, so the latents are turned down beside the biases.
    """
    decoder.input_layer.weight.mul_(0.1)
    decoder.input_layer.bias.normal_(generator=generator)
    for name, parameter in decoder.named_parameters():
        if ".conv." in name:  # an upsampler: its eight offsets start alike, so that it repeats instead of scattering
            parameter.copy_(parameter.unflatten(0, (-1, 8))[:, :1].expand(-1, 8, *parameter.shape[1:]).flatten(0, 1))
    args, side = decoder.args, 8
    logits = decoder(torch.randn(4, args.latent_channels, side, side, side, generator=generator))[:, 0]
    border = torch.ones(logits.shape[1:], dtype=torch.bool)
    border[2:-2, 2:-2, 2:-2] = False
    outside_in = logits[:, ~border].mean() < logits[:, border].mean()
    last = decoder.out_layer[2]
    last.weight.mul_(-1 if outside_in else 1)
    last.bias.mul_(-1 if outside_in else 1)
    last.bias.sub_(torch.quantile(-logits if outside_in else logits, 1 - OCCUPIED_SHARE))


def write_model(folder: Path, *, seed: int, changes: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, int]:
    """Writes the model folder, with `changes` to the networks' options by role; gives the parameters by role."""
    parameters = {}
    for role, (name, args) in NETWORK_ARGS.items():
        torch.manual_seed(seed)
        kind = NETWORKS[name]
        typed = kind.args(**{**args, **(changes or {}).get(role, {})})
        network = kind.build(typed, TORCH_OPS)
        if isinstance(network, SparseStructureDecoder):
            occupy_plausibly(network, torch.Generator().manual_seed(seed))
        save_network(folder / "ckpts" / role, name, typed, network, torch.float16)
        parameters[role] = sum(p.numel() for p in network.parameters())
    (folder / "pipeline.json").write_text(json.dumps(PIPELINE, indent=1) + "\n")
    (folder / "NOTICE.md").write_text(NOTICE + "\n")
    return parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    parameters = write_model(options.folder, seed=options.seed)
    for role, count in {**parameters, "all": sum(parameters.values())}.items():
        print(f"{role:<30} {count:>10,} parameters")


if __name__ == "__main__":
    main()
