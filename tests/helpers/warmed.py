"""Imported by the server that tests fork from, so that their processes start at once; see `tests.helpers.forks`."""

import torch
from PIL import Image

import ss4d.pipelines.run
import ss4d.stages.training.run  # noqa: F401
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Camera, GaussianClip

torch.set_num_threads(1)  # a pool of threads would be lost in the fork
Image.init()  # loads what reads each format
gaussian = GaussianClip(
    means=torch.zeros(1, 3),
    scales=torch.ones(1, 3),
    quats=torch.eye(1, 4),
    colors=torch.ones(1, 3),
    opacities=torch.ones(1),
    offsets=torch.tensor([0, 1]),
)
ahead = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 2.0), (0.0, 0.0, 0.0, 1.0))
rasterize(gaussian, Camera(world_to_camera=ahead, focal=16, width=16, height=16))  # loads the compiled kernels
