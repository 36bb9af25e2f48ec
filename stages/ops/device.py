"""Which device a user's word means on this machine."""

from typing import Literal

import torch

from ss4d.stages.errors import InputError

Device = Literal["cpu", "cuda"]


def resolve_device(word: str) -> Device:
    """The device that "auto", "cpu" or "cuda" means on this machine.

    Raises:
        InputError: for another word, or for "cuda" where there is none.
    """
    available = torch.cuda.is_available()
    if word == "auto":
        return "cuda" if available else "cpu"
    if word == "cuda":
        if not available:
            raise InputError(
                "--device cuda: torch finds no CUDA device here; use --device cpu, or install torch for CUDA"
            )
        return "cuda"
    if word == "cpu":
        return "cpu"
    raise InputError(f"--device must be auto, cpu or cuda; got {word!r}")
