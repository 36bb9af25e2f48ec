"""A table in one Parquet file, a dataclass a row; replaced as a whole, so that a reader finds the old or the new."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow  # type: ignore[import-untyped] # the library has no type marker
from pyarrow import parquet

from storage.errors import StoreError
from storage.files import write_bytes

R = TypeVar("R")
_COLUMNS: dict[Any, pyarrow.DataType] = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    str | None: pyarrow.string(),
}


def write_rows(path: Path, kind: type[R], rows: Sequence[R]) -> None:
    """Writes the table, a column for each field of `kind`: a dataclass of str, int, float and str | None.

    Raises:
        OSError: if it cannot be written; `path` is then as it was.
    """
    schema = _schema(kind)
    table = pyarrow.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_bytes(path, buffer.getvalue().to_pybytes())


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """The rows of the table, in order.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        StoreError: if it is no such table.
    """
    data = path.read_bytes()
    try:
        table = parquet.read_table(pyarrow.BufferReader(data), page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # OSError: a page's checksum
        raise StoreError(f"{path} is damaged, it is not a Parquet table ({error})") from error
    if not table.schema.equals(schema := _schema(kind)):
        raise StoreError(f"{path} is another kind of table: it has {table.schema.names}, not {schema.names}")
    return [kind(**row) for row in table.to_pylist()]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes that do the same out, so that what one reads and then replaces is not lost to another.

    Raises:
        OSError: if the lock's file cannot be made.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go when the file is closed, also by a kill
        yield


def _schema(kind: type[Any]) -> pyarrow.Schema:
    return pyarrow.schema([(field.name, _COLUMNS[field.type]) for field in fields(kind)])
