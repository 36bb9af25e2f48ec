"""A device that is not there: tensors that say they lie on CUDA, over data on the CPU, or over no numbers at all.

What torch for CUDA would refuse is refused here: a CPU tensor among the arguments, `.numpy()`. Where it would make the
CPU wait for the device is known. And the arithmetic and memory of what is called can be counted, at sizes that nobody
could compute here.
"""

import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

PRETENDED = torch.device("cuda:0")
aten = torch.ops.aten
# What brings values to the CPU, or a size that depends on them: either waits for all that the device has to do.
WAITING = {
    aten._local_scalar_dense,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten.unique_dim,
    aten._unique2,
    aten.bincount,
    aten.repeat_interleave,
}
TO_PYTHON = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
CROSSING = {aten._to_copy, aten.copy_}  # may take tensors of two devices


class DeviceError(AssertionError):
    """What a real device would refuse, or would have to wait for where it must not."""


class _Pretended(Tensor):
    """Says it lies on `PRETENDED`; `inner` has the values, or (on "meta") the shape alone."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Pretended":
        made: _Pretended = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # torch leaves it out of its stubs
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=PRETENDED,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise DeviceError(f"{func} on a tensor of a device that has been left")


class PretendDevice(TorchDispatchMode):
    """Inside it, "cuda" is a device.

    Args:
        values: whether floating-point tensors have values; whole numbers always have, so that plans can be made.
    """

    def __init__(self, *, values: bool) -> None:
        super().__init__()
        self._values = values
        self._never_waits = False
        self.live = self.peak = 0  # bytes
        self.flop = 0
        self._calls = _Calls(self)
        self._known: set[int] = set()

    def __enter__(self) -> "PretendDevice":
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        super().__enter__()
        self._calls.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._calls.__exit__(*error)
        super().__exit__(*error)
        self._patch.undo()

    def forbid_waiting(self, forbidden: bool) -> None:
        """Whether what is called from now on must not wait for the device."""
        self._never_waits = forbidden

    def there(self, x: Tensor) -> Tensor:
        """A tensor as it would be on the device."""
        if not self._values and not _whole(x):
            x = x.to("meta")
        return self.wrap(x)

    def move(self, module: nn.Module) -> nn.Module:
        """The module with its parameters and buffers on the device."""
        for part in module.modules():
            for name, parameter in list(part._parameters.items()):
                if parameter is not None:
                    part._parameters[name] = self.there(parameter.detach())  # type: ignore[assignment]  # as good as one
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = self.there(buffer)
        return module

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in _tensors((args, kwargs)) if isinstance(x, Tensor)]
        here = [x for x in given if not isinstance(x, _Pretended)]
        target = kwargs.get("device")
        made_there = _is_there(target)
        if len(here) == len(given) and not made_there:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet not in CROSSING and any(x.ndim for x in here) and len(here) < len(given):
            raise DeviceError(f"{func} is given tensors of the CPU and of the device")
        leaves = target is not None and not made_there
        by_mask = packet in (aten.index, aten.index_put_) and any(x.dtype == torch.bool for x in _tensors(args[1]))
        into_cpu = packet is aten.copy_ and not isinstance(args[0], _Pretended)
        if packet in WAITING or by_mask or leaves or into_cpu:
            self.check_waiting(str(packet))
        if leaves:
            return func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        return self._compute(func, args, kwargs, made_there)

    def check_waiting(self, call: str) -> None:
        """Refuses a call that waits for the device where none may."""
        if self._never_waits:
            raise DeviceError(f"{call} waits for the device")

    def index(self, func: Any, args: Any) -> Any:
        """Indexing, which torch would prepare with a guard that only torch for CUDA has."""
        if any(x.ndim and not isinstance(x, _Pretended) for x in _tensors(args)):
            raise DeviceError("a tensor of the device is indexed with one of the CPU, or the other way round")
        if any(x.dtype == torch.bool for x in _tensors(args[1])):
            self.check_waiting("indexing with a mask")
        inner = tree_map(_inner, args)
        if args[0].inner.is_meta:
            inner = tree_map(_to_meta, inner)
        out = func(*inner)
        return out if out is None else self.wrap(out)

    def _compute(self, func: Any, args: Any, kwargs: dict[str, Any], made_there: bool) -> Any:
        inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
        if made_there:
            inner_kwargs["device"] = torch.device("cpu")
        if not self._values and (_floats(kwargs) or any(x.is_meta for x in _tensors((inner_args, inner_kwargs)))):
            # Asked for without values: of 600,000 rows, values that nobody needs would fill the memory.
            inner_args, inner_kwargs = tree_map(_to_meta, inner_args), tree_map(_to_meta, inner_kwargs)
            if "device" in inner_kwargs:
                inner_kwargs["device"] = torch.device("meta")
        out = func(*inner_args, **inner_kwargs)
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*inner_args, **inner_kwargs, out_val=out)
        wrapped = tree_map(self._wrap_result, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    def _wrap_result(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return self.wrap(x if self._values or _whole(x) else _to_meta(x))

    def wrap(self, x: Tensor) -> Tensor:
        """A tensor of the device over `x`, whose memory counts from now until it is given back."""
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._give_back, key, size)
        return _Pretended(x)

    def _give_back(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class _Calls(TorchFunctionMode):
    """Calls that have to be seen as such, before torch takes them apart."""

    def __init__(self, device: PretendDevice) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and _is_there((kwargs or {}).get("device")):
            return self._device.there(torch.tensor(*args, **{**kwargs, "device": "cpu"}))
        if not args or not isinstance(args[0], _Pretended):
            return func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args)
        if func in TO_PYTHON:
            self._device.check_waiting(func.__name__)
            return func(args[0].inner)
        if func in (Tensor.nonzero, torch.nonzero):
            self._device.check_waiting("nonzero")
            return self._device.wrap(func(args[0].inner))
        if func in INDEXING:
            return self._device.index(func, args)
        if func is Tensor.new_tensor:
            return self._device.there(torch.tensor(args[1], dtype=args[0].dtype))
        if func is Tensor.numpy:
            raise DeviceError("numpy() of a tensor on the device")
        return func(*args, **(kwargs or {}))

    def _attention(self, *args: Any) -> Tensor:
        """As one kernel, which keeps no matrix of scores."""
        if any(not isinstance(x, _Pretended) for x in args):
            raise DeviceError("attention is given tensors of the CPU and of the device")
        q, k, v = (x.inner for x in args)
        batch, heads, queries, channels = q.shape
        self._device.flop += 4 * batch * heads * queries * k.shape[2] * channels
        if q.is_meta:
            out = q.new_empty(batch, queries, heads, v.shape[3]).transpose(1, 2)
        else:
            out = functional.scaled_dot_product_attention(q, k, v)
        return self._device.wrap(out)


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == PRETENDED.type


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, _Pretended) else x


def _to_meta(x: Any) -> Any:
    return x.to("meta") if isinstance(x, Tensor) else x


def _whole(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex())


def _floats(kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda x: found.append(x) if isinstance(x, Tensor) else None, tree)
    return found
