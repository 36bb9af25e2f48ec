"""Whether products of training are faster in bfloat16 on this machine."""

import time

import torch

SIDE = 512  # of the matrices that are multiplied; some milliseconds each
TRIES = 5  # the fastest counts, so that other work on the machine does not


def faster_in_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies matrices faster in bfloat16 than in float32.

    GPUs do, and processors that have instructions for it, twice as fast; others take several times as long, as they
    compute in float32 after all and convert each operand.
    """
    if device.type == "cuda":
        return True
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(SIDE, SIDE, dtype=dtype)
    times = []
    for _ in range(TRIES + 1):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return min(times[1:])
