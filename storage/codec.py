"""How arrays lie in Zarr: chunks, compression, checksums and names of axes. The first axis is the one cut into chunks.

Every chunk carries a CRC-32C, so that a flipped byte fails to read. Every chunk is written, zeros too, so that a
missing one is known to be lost: Zarr itself reads a missing chunk as zeros.
"""

import asyncio
import hashlib
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from ss4d.storage.errors import DamageError, StoreError, reached
from ss4d.storage.place import ROOT

ROWS = 16384  # rows in a chunk of packed data
PACKED = ("n", "vertex", "face")  # axes that count the rows of such data
_WAITING = "waiting for the others"


@dataclass(frozen=True, eq=False)
class ArrayData:
    """An array with what a reader needs to understand it.

    Args:
        data: the numbers: bool, integer or real.
        dims: the name of each axis; those in `PACKED` count packed rows, "t" frames.
        chunks: sizes of a chunk; None for 16384 rows where the first axis counts packed ones, one frame where it is "t"
            and not the only one, else the whole array.
        attributes: JSON values for a person to read: meaning, unit, order of columns.

    Raises:
        StoreError: if `dims` or `chunks` do not fit the array, or Zarr has no such type.
    """

    data: NDArray[Any]
    dims: tuple[str, ...]
    chunks: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = f"an array of shape {self.data.shape}"
        if self.data.dtype.kind not in "biuf":
            raise StoreError(f"{given} has type {self.data.dtype}; the store keeps bool, integer and real arrays only")
        if len(self.dims) != self.data.ndim:
            raise StoreError(f"{given} has {self.data.ndim} axes, but {len(self.dims)} names for them: {self.dims}")
        if self.chunks is not None and (len(self.chunks) != self.data.ndim or min(self.chunks, default=1) < 1):
            raise StoreError(f"{given} cannot be cut into chunks {self.chunks}; give one size of at least 1 an axis")

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Sizes of one chunk, at least 1 along each axis, even of an array without elements."""
        if self.chunks is not None:
            return self.chunks
        sizes = list(self.data.shape)
        if self.dims and self.dims[0] in PACKED:
            sizes[0] = min(sizes[0], ROWS)
        elif self.dims[:1] == ("t",) and len(sizes) > 1:
            sizes[0] = 1
        return tuple(max(size, 1) for size in sizes)


def write_array(folder: Path, array: ArrayData) -> None:
    """Writes `array` as a Zarr v3 array that fills `folder`.

    When it returns or raises, no thread still writes, also after Ctrl-C: the folder can be deleted.

    Raises:
        OSError: such as a full disk, with its number.
    """
    try:
        stored = zarr.create_array(
            store=LocalStore(folder),
            shape=array.data.shape,
            chunks=array.chunk_shape,
            dtype=array.data.dtype,
            compressors=_codecs(array),
            fill_value=0,
            dimension_names=array.dims,
            attributes=dict(array.attributes),
            chunk_key_encoding={"name": "default", "separator": "."},  # one folder an array instead of one a chunk
            config={"write_empty_chunks": True},
        )
        stored[...] = array.data
    except BaseException:
        sync(_others_done())  # Zarr's threads go on with the other chunks after one failed, and after Ctrl-C
        raise


_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # what odd JSON leads to


class _WholeStore(WrapperStore[Store]):
    """Lets a missing chunk be an error: all chunks are written, but Zarr would read zeros.

    Args:
        store: that holds the array.
        digests: takes the SHA-256 of each file that is read whole, by its name; None to leave that time.
    """

    def __init__(self, store: Store, digests: dict[str, str] | None) -> None:
        super().__init__(store)
        self._digests = digests

    def _with_store(self, store: Store) -> "_WholeStore":
        return _WholeStore(store, self._digests)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        with reached(str(self._store)):
            found = await super().get(key, prototype, byte_range)
        if found is None and not key.endswith(ROOT):
            raise DamageError(f"the chunk {key} is missing")
        if found is not None and byte_range is None and self._digests is not None:
            # In a thread, so that several chunks are hashed while others are read and decoded.
            self._digests[key.rpartition("/")[2]] = await asyncio.to_thread(_sha256, found)
        return found


def _sha256(buffer: Buffer) -> str:
    return hashlib.sha256(np.ascontiguousarray(buffer.as_numpy_array()).data).hexdigest()


def open_array(store: Store, path: str, digests: dict[str, str] | None = None) -> zarr.Array[Any]:
    """The array at `path` in a store of Zarr's, read-only; nothing is read but its description.

    Args:
        store: of Zarr's.
        path: in it.
        digests: takes the SHA-256 of each of the array's files that is read, by its name.

    Raises:
        DamageError: if there is none.
    """
    try:
        return zarr.open_array(_WholeStore(store, digests), path=path, mode="r", zarr_format=3)
    except (FileNotFoundError, *_ODD) as error:
        raise DamageError(f"{ROOT} describes no array: {error}") from error


def read_array(array: zarr.Array[Any], part: tuple[slice, ...] | None = None) -> NDArray[Any]:
    """The whole array in memory, or a part of it.

    Raises:
        DamageError: if a chunk is missing, or its checksum says that it was damaged.
    """
    try:
        return np.asarray(array[... if part is None else part])
    except StoreError:
        raise
    except (ValueError, RuntimeError) as error:
        raise DamageError("a chunk is not what it was") from error


def check_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], files: Set[str]) -> None:
    """Makes sure that an array's folder, with these files in it, has all its chunks.

    Raises:
        DamageError: if it has not.
    """
    num_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    # Counted before they are named: a damaged description may claim any number.
    lost = num_chunks - len(files - {ROOT})
    if lost <= 0:
        lost = len(chunk_names(shape, chunks).keys() - files)
    if lost > 0:
        raise DamageError(f"lacks chunks: it has {num_chunks - lost} of {num_chunks}")


def chunk_names(shape: tuple[int, ...], chunks: tuple[int, ...]) -> dict[str, tuple[slice, ...]]:
    """The part of an array that lies in each of its chunks' files."""
    counts = [range(-(-size // chunk)) for size, chunk in zip(shape, chunks, strict=True)]
    return {
        ".".join(map(str, ("c", *index))): tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))
        for index in product(*counts)
    }


async def _others_done() -> None:
    """Waits for everything else that runs in Zarr's event loop; whoever started it has or had its errors."""
    this = asyncio.current_task()
    assert this is not None  # a coroutine runs in a task
    this.set_name(_WAITING)
    others = [task for task in asyncio.all_tasks() if task.get_name() != _WAITING]  # two must not wait for each other
    await asyncio.gather(*others, return_exceptions=True)


def _codecs(array: ArrayData) -> list[BloscCodec | ZstdCodec | Crc32cCodec]:
    # Shuffled bits make coordinates many times smaller, but of real numbers and of pictures they hide what repeats:
    # rendered views and features of a surface take half as much again. Of features, level 1 leaves 15 % more than 3.
    if array.data.dtype.kind == "f" or array.data.dtype == np.uint8:
        return [ZstdCodec(level=3), Crc32cCodec()]
    return [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()]
