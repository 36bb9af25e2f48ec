"""Seconds, arithmetic and memory of what is called, as a whole and by the kinds of layers in it."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ss4d.pipelines.meter import Meter
from ss4d.stages.nn.attention import Attention
from ss4d.stages.nn.block import FeedForward
from ss4d.stages.nn.resample import SubmanifoldConv

# Sides of the matrices that the ceiling is measured with: large enough to be fast, small enough to be quick.
CEILING_SIDE = {"cpu": 1536, "cuda": 8192}
CEILING_TIMES = 5
REST = "rest"
aten = torch.ops.aten


def _attention_flop(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]  # torch leaves it untyped


# Torch itself counts the attention of a GPU only.
CPU_ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}


@dataclass(frozen=True)
class Cost:
    """What a piece of work took: seconds, and arithmetic in its matrix products (FLOP, 2 for each product added)."""

    seconds: float
    flop: float


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def counts_processor(device: torch.device) -> bool:
    """Whether seconds are those of the processor: on one thread of a CPU, so that other work there does not count."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def now(device: torch.device) -> float:
    """Seconds of a clock, when the device has done all that it was given."""
    wait(device)
    return time.process_time() if counts_processor(device) else time.perf_counter()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long one call takes on a device that has nothing else to do."""
    begun = now(device)
    work()
    return now(device) - begun


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The most FLOP a second that this device reaches in products of square matrices, measured."""
    side = CEILING_SIDE[device.type]
    matrix = torch.randn(side, side, device=device).to(dtype)
    matrix @ matrix  # the first one, torch prepares
    return 2 * side**3 / min(seconds_of(lambda: matrix @ matrix, device) for _ in range(CEILING_TIMES))


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Bytes at the peak of one call: of this process on a CPU, of what torch holds on CUDA."""
    with Meter() as meter:
        work()
        wait(device)
    return meter.peak_device_memory if device.type == "cuda" else meter.peak_memory


def costs(
    work: Callable[[], object], network: nn.Module | None, device: torch.device
) -> tuple[float, Mapping[str, Cost]]:
    """The arithmetic (FLOP) of one call, and its cost by the kind of layer, the rest of it under `REST`.

    Layers are waited for one by one, so their seconds may add up to a little more than the call takes undisturbed.
    Without a network no layers are told apart.
    """
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        flop = _by_layer(work, network, counter.get_total_flops)
    seconds = _by_layer(work, network, partial(now, device))  # not while it is counted, which takes time
    return sum(flop.values()), {kind: Cost(seconds[kind], flop[kind]) for kind in seconds} if network else {}


def _by_layer(work: Callable[[], object], network: nn.Module | None, gauge: Callable[[], float]) -> Mapping[str, float]:
    """How far `gauge` goes on during each kind of layer of one call; they do not lie in each other."""
    gone: dict[str, float] = defaultdict(float)
    begun: list[float] = []

    def ended(kind: str) -> Callable[..., None]:
        def add(*_: Any) -> None:
            gone[kind] += gauge() - begun.pop()

        return add

    with ExitStack() as hooks:
        for name, layer in network.named_modules() if network is not None else ():
            if kind := _kind(name, layer):
                hooks.callback(layer.register_forward_pre_hook(lambda *_: begun.append(gauge())).remove)
                hooks.callback(layer.register_forward_hook(ended(kind)).remove)
        start = gauge()
        work()
        whole = gauge() - start
    gone[REST] = whole - sum(gone.values())
    return gone


def _kind(name: str, layer: nn.Module) -> str | None:
    match layer:
        case Attention():
            return "cross-attention" if name.endswith("cross_attn") else "self-attention"
        case FeedForward():
            return "feed-forward"
        case SubmanifoldConv():
            return "convolution"
    return None
