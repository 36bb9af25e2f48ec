"""Tables of clips that no honest writer makes."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ss4d.storage.errors import StoreError
from ss4d.storage.manifest import read_columns, read_rows


@dataclass(frozen=True)
class Named:
    """A row."""

    column_name: str


@pytest.mark.parametrize("text", ["a name", "a value"])
def test_text_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    """Arrow takes names and texts as they lie in the file, and fails where Python wants them."""
    path = tmp_path / "table.parquet"
    values = pyarrow.array([b"good", b"\xff\xfe" if text == "a value" else b"x"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"column_name": values}), path, store_schema=False)
    if text == "a name":
        path.write_bytes(path.read_bytes().replace(b"column_name", b"column\xe6name"))
    for read in (lambda: read_rows(path, Named), lambda: read_columns(path, ("column_name",))):
        with pytest.raises(StoreError, match="is damaged, it is not a Parquet table"):
            read()
