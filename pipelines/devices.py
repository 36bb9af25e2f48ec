"""The devices of this machine that workers share out among themselves."""

import os

import torch


def gpu_names() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
