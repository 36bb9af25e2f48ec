"""The tiny model: sizes that two cores can run, of the published networks, and of the encoders that training needs.

Tables hold, by role, the published class name and its options, as a model folder's JSON does.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams

Networks = Mapping[str, tuple[str, Mapping[str, Any]]]

SIGMA_MIN = 1e-5  # noise left in the data at t = 0
STRUCTURE_SAMPLER = SamplerParams(steps=4, cfg_strength=0.4, cfg_interval=(0.5, 1.0), rescale_t=3.0, temperature=0.3)
SLAT_SAMPLER = SamplerParams(steps=2, cfg_strength=0.0, cfg_interval=(0.5, 1.0), rescale_t=1.0, temperature=0.8)
CELLS = 16  # of the grid along each axis
CELL_CHANNELS = 16  # features of a cell in the token of its column
IMAGE_CHANNELS = CELLS * CELL_CHANNELS
PUBLISHED: Networks = {
    IMAGE_ENCODER: (
        "ColumnEncoder",
        {
            "image_size": 64,
            "resolution": CELLS,
            "cell_channels": CELL_CHANNELS,
            "channels": (80, 160, 240),
            "patch_size": 4,
            "num_blocks": 2,
            "num_up_blocks": 1,
        },
    ),
    STRUCTURE_FLOW: (
        "SparseStructureFlow4DModel",
        {
            "resolution": 4,
            "in_channels": 8 + (CELLS // 4) ** 3 * CELL_CHANNELS,  # the latent and its guide
            "out_channels": 8,
            "model_channels": 192,
            "cond_channels": IMAGE_CHANNELS,
            "num_blocks": 4,
            "num_heads": 6,
            "mlp_ratio": 4,
            "patch_size": 1,
            "pe_mode": "rope_t",
            "qk_rms_norm": True,
            "expand_self_attn": True,
            "window_size": 4,
            "share_mod": True,
        },
    ),
    STRUCTURE_DECODER: (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": (64, 32, 16),
        },
    ),
    LATENT_FLOW: (
        "SLatFlow4DModel",
        {
            "resolution": CELLS,
            "in_channels": 8 + CELL_CHANNELS,  # the latent and its guide
            "out_channels": 8,
            "model_channels": 128,
            "cond_channels": IMAGE_CHANNELS,
            "num_blocks": 3,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": 2,
            "num_io_res_blocks": 2,
            "io_block_channels": (32,),
            "io_block_channels_t": (128,),
            "pe_mode": "rope_t",
            "qk_rms_norm": True,
            "expand_self_attn": True,
            "conv_type": "3D_1D",
            "share_mod": True,
        },
    ),
    GAUSSIAN_DECODER: (
        "SLatGaussianDecoder",
        {
            "resolution": 16,
            "model_channels": 128,
            "latent_channels": 8,
            "num_blocks": 4,
            "num_heads": 4,
            "mlp_ratio": 4,
            "attn_mode": "swin",
            "window_size": 4,
            "pe_mode": "rope_t",
            "expand_self_attn": True,
            "use_fp16": False,
            "representation_config": {
                "lr": {"_xyz": 1.0, "_features_dc": 3.5, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
                "perturb_offset": True,
                "voxel_size": 1.5,
                "num_gaussians": 16,
                "2d_filter_kernel_size": 0.1,
                "3d_filter_kernel_size": 0.0009,
                "scaling_bias": 0.01,
                "opacity_bias": 0.1,
                "scaling_activation": "softplus",
            },
        },
    ),
}

# What turns data into latents: for training and measuring only, so not part of the model folder's own files.
ENCODERS: Networks = {
    STRUCTURE_ENCODER: (
        "SparseStructureEncoder",
        {
            "in_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": (8, 32, 64),
        },
    ),
    LATENT_ENCODER: (
        "SLatEncoder",
        {
            "resolution": 16,
            "in_channels": 9,
            "model_channels": 128,
            "latent_channels": 8,
            "num_blocks": 2,
            "num_heads": 4,
            "mlp_ratio": 4,
            "attn_mode": "swin",
            "window_size": 4,
            "pe_mode": "rope_t",
            "expand_self_attn": True,
            "use_fp16": False,
        },
    ),
}


def changed(networks: Networks, changes: Mapping[str, Mapping[str, Any]]) -> Networks:
    """The table with `changes` to the options by role."""
    return {role: (name, {**options, **changes.get(role, {})}) for role, (name, options) in networks.items()}


def file_name(role: str) -> str:
    """What the files of a network are called where training writes them, without their suffixes."""
    return "image_encoder" if role == IMAGE_ENCODER else role


def pipeline(
    normalization: LatentNormalization,
    structure_sampler: SamplerParams = STRUCTURE_SAMPLER,
    slat_sampler: SamplerParams = SLAT_SAMPLER,
) -> dict[str, Any]:
    """The content of the pipeline.json of a model whose networks lie in ckpts/."""
    return {
        "name": "TrellisVideoTo4DPipeline",
        "args": {
            "models": {role: f"ckpts/{file_name(role)}" for role in PUBLISHED if role != IMAGE_ENCODER},
            "sparse_structure_sampler": _sampler(structure_sampler),
            "slat_sampler": _sampler(slat_sampler),
            "slat_normalization": {key: list(value) for key, value in asdict(normalization).items()},
            IMAGE_ENCODER: f"ckpts/{file_name(IMAGE_ENCODER)}",
        },
    }


def _sampler(params: SamplerParams) -> dict[str, Any]:
    """A sampler as a model folder describes it."""
    return {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": SIGMA_MIN}, "params": asdict(params)}
