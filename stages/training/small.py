"""The small model: sizes that one large GPU trains in less than half an hour, on the published grid of 64 cells.

What is not named here is as in the tiny model.
"""

from collections.abc import Mapping
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
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED, Networks, changed

CELLS = 64  # of the grid along each axis
LATENT_CELLS = 16  # of the occupancy latent
CELL_CHANNELS = 8  # features of a cell in the token of its column
IMAGE_CHANNELS = CELLS * CELL_CHANNELS
SIZES: Mapping[str, Mapping[str, Any]] = {
    IMAGE_ENCODER: {
        "image_size": 256,
        "resolution": CELLS,
        "cell_channels": CELL_CHANNELS,
        "channels": (128, 256, 384),
        "patch_size": 4,
        "axes": "crop",
    },
    STRUCTURE_FLOW: {
        "resolution": LATENT_CELLS,
        "in_channels": 8 + (CELLS // LATENT_CELLS) ** 3 * CELL_CHANNELS,
        "model_channels": 384,
        "cond_channels": IMAGE_CHANNELS,
        "num_blocks": 10,
        "num_heads": 6,
        "patch_size": 2,
    },
    STRUCTURE_DECODER: {"channels": (128, 64, 16)},
    STRUCTURE_ENCODER: {"channels": (16, 64, 128)},
    LATENT_FLOW: {
        "resolution": CELLS,
        "in_channels": 8 + CELL_CHANNELS,
        "model_channels": 384,
        "cond_channels": IMAGE_CHANNELS,
        "num_blocks": 8,
        "num_heads": 6,
        "io_block_channels": (96,),
        "io_block_channels_t": (384,),
    },
    GAUSSIAN_DECODER: {
        "resolution": CELLS,
        "model_channels": 256,
        "num_blocks": 6,
        "num_heads": 4,
        "window_size": 8,
        "representation_config": {
            **PUBLISHED[GAUSSIAN_DECODER][1]["representation_config"],
            "num_gaussians": 8,
            "scaling_bias": 0.004,
        },
    },
    LATENT_ENCODER: {"resolution": CELLS, "model_channels": 256, "num_blocks": 4, "num_heads": 4, "window_size": 8},
}
NETWORKS: Networks = changed({**PUBLISHED, **ENCODERS}, SIZES)
