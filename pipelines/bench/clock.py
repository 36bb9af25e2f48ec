"""Seconds, arithmetic and memory of what is called, as a whole and by the kinds of layers in it."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ss4d.pipelines.meter import Meter
from ss4d.stages.nn.attention import Attention
from ss4d.stages.nn.block import FeedForward
from ss4d.stages.nn.column_encoder import Convolution
from ss4d.stages.nn.resample import SubmanifoldConv

# Sides of the matrices that the ceiling is measured with: large enough to be fast, small enough to be quick.
CEILING_SIDE = {"cpu": 1536, "cuda": 8192}
CEILING_TIMES = 5
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, Convolution)  # that cuDNN does on a card
REST = "rest"
TF32 = "tf32"
aten = torch.ops.aten


def _attention_flop(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]  # torch leaves it untyped


def varlen_flop(q: Tensor, k: Tensor, v: Tensor, query_starts: Tensor, key_starts: Tensor, *_: Any, **__: Any) -> int:
    """Of attention of groups of unequal length, whose rows are (n, h, d) and begin at the starts."""
    pairs = int((query_starts.diff().long() * key_starts.diff().long()).sum())
    return 2 * pairs * q.shape[1] * (k.shape[2] + v.shape[2])


varlen_flop._get_raw = True  # type: ignore[attr-defined]  # so torch hands over the tensors, not their shapes


def _uncounted() -> Mapping[Any, Callable[..., int]]:
    """What torch does not count itself: attention of a CPU, and in torch 2.11 that of `varlen`."""
    formulas: dict[Any, Callable[..., int]] = {aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}
    try:
        import torch.nn.attention.varlen  # makes the operation
    except ImportError:  # before torch 2.10
        return formulas
    return formulas | {torch.ops.torch_attn._varlen_attn: varlen_flop}


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


def products_format(network: nn.Module, device: torch.device) -> str:
    """What nearly all products of a network are computed in: the format of most of its weights, or "tf32".

    That is what cuDNN rounds float32 to in convolutions, unless it is told otherwise: many times as fast.
    """
    sizes: Counter[tuple[torch.dtype, bool]] = Counter()
    for layer in network.modules():
        for weight in layer.parameters(recurse=False):
            sizes[weight.dtype, isinstance(layer, CONVOLUTIONS)] += weight.numel()
    (dtype, convolves), _ = sizes.most_common(1)[0]
    if dtype == torch.float32 and convolves and device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        return TF32
    return str(dtype).removeprefix("torch.")


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """By each format that networks can compute in, if their torsos do so in `dtype`: the most FLOP a second that this
    device reaches in products of square matrices, measured.
    """
    found = {"float32": _ceiling(device, torch.float32)}
    if device.type == "cuda":
        with _tf32():
            found[TF32] = _ceiling(device, torch.float32)
    name = str(dtype).removeprefix("torch.")
    return found if name in found else found | {name: _ceiling(device, dtype)}


def _ceiling(device: torch.device, dtype: torch.dtype) -> float:
    side = CEILING_SIDE[device.type]
    matrix = torch.randn(side, side, device=device).to(dtype)
    matrix @ matrix  # the first one, torch prepares
    return 2 * side**3 / min(seconds_of(lambda: matrix @ matrix, device) for _ in range(CEILING_TIMES))


@contextmanager
def _tf32() -> Iterator[None]:
    """Products of float32 matrices are computed in TF32 in here, on cards that have it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
    with FlopCounterMode(display=False, custom_mapping=dict(_uncounted())) as counter:
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
