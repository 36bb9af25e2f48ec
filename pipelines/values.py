"""Between a stage's values and the store's arrays, driven by what each value type declares."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

from ss4d.stages.types import Value
from ss4d.storage.artifact import Artifact
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import DamageError
from ss4d.storage.store import Writer

V = TypeVar("V", bound=Value)


def write_value(writer: Writer, value: Value, *, whole: bool = False) -> None:
    """Writes each declared array with its axes and meaning beside it.

    Args:
        writer: of the artifact.
        value: what to write.
        whole: each array as one chunk, for what is never read in parts: fewer files, and smaller.
    """
    for name, spec in value.specs().items():
        data = _data(value, name)
        writer.write(
            name,
            ArrayData(
                data=data,
                dims=spec.dims,
                chunks=tuple(max(size, 1) for size in data.shape) if whole else None,
                attributes={"meaning": spec.meaning},
            ),
        )


def as_read(value: V) -> V:
    """A copy of a value that shares no memory with it, the same as if it had been written and read again."""
    arrays = {name: torch.from_numpy(_data(value, name).copy()) for name in value.specs()}
    return type(value)(**arrays, **scalars(value))


def _data(value: Value, name: str) -> NDArray[Any]:
    tensor: torch.Tensor = getattr(value, name)
    data: NDArray[Any] = tensor.detach().cpu().contiguous().numpy()
    return data


def scalars(value: Value) -> Mapping[str, Any]:
    """The value's fields that are not arrays: numbers and words, kept in the artifact's attributes."""
    return {f.name: getattr(value, f.name) for f in fields(value) if "spec" not in f.metadata}


def read_value(kind: type[V], artifact: Artifact) -> V:
    """The value of type `kind` in `artifact`, checked against its declaration.

    What was stored before an optional array was declared comes without it.

    Raises:
        DamageError: if it is not there as it was written.
        ValueSpecError: if an array is not what the type declares.
    """
    wanted = [name for name, spec in kind.specs().items() if not spec.optional or name in artifact.arrays()]
    arrays = {name: torch.from_numpy(artifact.read(name)) for name in wanted}
    return kind(**arrays, **_read_scalars(kind, artifact))


def _read_scalars(kind: type[Value], artifact: Artifact) -> dict[str, Any]:
    wanted = {f.name: f.type for f in fields(kind) if "spec" not in f.metadata}
    given = artifact.attributes.get("values")
    if not isinstance(given, dict) or given.keys() != wanted.keys() or not _fit(given, wanted):
        told = ", ".join(f"{name} ({getattr(type_, '__name__', type_)})" for name, type_ in wanted.items())
        raise DamageError(
            f"{artifact.ref} is no {kind.__name__}: it must tell {told or 'nothing'}, but tells {given!r}"
        )
    return given


def _fit(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all numbers and words have their types; JSON may have made an int of a float."""
    return all(type(given[name]) in ((int, float) if kind is float else (kind,)) for name, kind in wanted.items())
