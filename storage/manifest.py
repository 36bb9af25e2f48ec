"""A table in one Parquet file, a dataclass per row; replaced as a whole, so that readers see the old or the new."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow  # type: ignore[import-untyped] # the library has no type marker
from pyarrow import parquet

from ss4d.storage.errors import StoreError
from ss4d.storage.files import appending, read_plain, write_bytes

R = TypeVar("R")
_COLUMNS: dict[Any, pyarrow.DataType] = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    str | None: pyarrow.string(),
    int | None: pyarrow.int64(),
    float | None: pyarrow.float64(),
    bool | None: pyarrow.bool_(),
}


def write_rows(path: Path, kind: type[R], rows: Sequence[R]) -> None:
    """Writes the table, a column for each field of `kind`: a dataclass of str, int, float, one of them or bool or None.

    Raises:
        OSError: if it cannot be written; `path` is then as it was.
    """
    names = _schema(kind).names
    write_columns(path, kind, [[getattr(row, name) for row in rows] for name in names])


def write_columns(path: Path, kind: type[Any], columns: Sequence[Sequence[object]]) -> None:
    """Writes the table from its columns, in the order of the fields of `kind`. Raises as `write_rows` does."""
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(as_table(kind, columns), buffer, compression="zstd", write_page_checksum=True)
    write_bytes(path, buffer.getvalue().to_pybytes())


def as_table(kind: type[Any], columns: Sequence[Sequence[object]]) -> pyarrow.Table:
    """The table in memory, from its columns in the order of the fields of `kind`; no columns: a table of no rows."""
    schema = _schema(kind)
    return pyarrow.table(dict(zip(schema.names, columns or [()] * len(schema), strict=True)), schema=schema)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """The rows of the table, in order; columns that have a default may be missing, as in tables of before they were.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        StoreError: if it is no such table.
    """
    table = _read(path)
    schema = _schema(kind)
    optional = {field.name for field in fields(kind) if field.default is not MISSING}  # type: ignore[arg-type]
    here = pyarrow.schema([held for held in schema if held.name in table.schema.names or held.name not in optional])
    if not table.schema.equals(here):
        raise StoreError(f"{path} is another kind of table: it has {table.schema.names}, not {schema.names}")
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [kind(**dict(zip(here.names, row, strict=True))) for row in rows]


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Those of the columns called `names` that any table has, as Python values.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        StoreError: if it is no table.
    """
    table = _read(path)
    return {name: table.column(name).to_pylist() for name in names if name in table.schema.names}


def _read(path: Path) -> pyarrow.Table:
    data = read_plain(path)
    try:
        table = parquet.read_table(pyarrow.BufferReader(data), page_checksum_verification=True)
        table.validate(full=True)  # that texts are texts, too
        _ = table.schema.names
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # OSError: a page's checksum
        raise StoreError(f"{path} is damaged, it is not a Parquet table ({error})") from error
    return table


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes that do the same out, so that what one reads and then replaces is not lost to another.

    Raises:
        OSError: if the lock's file cannot be made.
    """
    with appending(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go when the file is closed, also by a kill
        yield


def _schema(kind: type[Any]) -> pyarrow.Schema:
    return pyarrow.schema([(field.name, _COLUMNS[field.type]) for field in fields(kind)])
