"""The sparse structure read from a file: whatever made the voxels, their looks are still the model's."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from ss4d.pipelines.implementation import Implementation
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.errors import InputError
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, Voxels


class VoxelFileConfig(StageConfig):
    """Which file."""

    method: Literal["voxel_file"] = Field("voxel_file", description="a NumPy array in a .npy file")
    file: Path = Field(description="of (t, r, r, r), or (r, r, r) for an object that stands still; not 0 is occupied")


def read_voxels(config: VoxelFileConfig, inputs: StageInputs) -> Voxels:
    """The occupied cells, for as many frames as the clip has."""
    num_frames = len(inputs.value("segmentation", Clip).rgb)
    try:
        cells = np.load(config.file, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{config.file} is no .npy file of numbers: {error}") from error
    if cells.ndim == 3:
        cells = np.repeat(cells[None], num_frames, axis=0)
    if cells.ndim != 4 or len(set(cells.shape[1:])) != 1 or len(cells) != num_frames:
        raise InputError(f"{config.file} must hold an array ({num_frames}, r, r, r) or (r, r, r); it is {cells.shape}")
    coords = torch.from_numpy(cells != 0).nonzero().int()
    inputs.progress(1, 1)
    return Voxels(
        coords=torch.cat([torch.zeros_like(coords[:, :1]), coords], dim=1),
        latent=torch.zeros(num_frames, 1, 1, 1, 1),  # the cells come from no latent
        resolution=cells.shape[1],
    )


VOXEL_FILE = Implementation(stage="sparse_structure", config=VoxelFileConfig, run=read_voxels, inputs=("segmentation",))
