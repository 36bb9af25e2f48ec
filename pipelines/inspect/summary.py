"""What a run's stages hold, one row per stage, as plain data and as tables of text and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, cast

import zarr
from rich.filesize import decimal

COLUMNS = ("stage", "state", "key", "implementation", "holds", "size", "seconds", "memory", "made from")
NUMERIC = ("size", "seconds", "memory")


@dataclass(frozen=True)
class ArraySummary:
    """An array as its description tells it, with no chunk read."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of a run.

    `state` is what the record says ("computed", "reused", "to do", "not needed"), "stored" where the run was stopped
    before it could record a finished stage, "missing" where a finished stage's result is gone from the store, and
    "damaged" where it cannot be read; `problem` then says why.
    """

    stage: str
    state: str
    key: str
    implementation: str
    parents: tuple[str, ...]
    arrays: tuple[ArraySummary, ...] = ()
    num_files: int = 0
    size: int | None = None  # bytes in the store; None: not stored
    seconds: float | None = None
    peak_memory_mib: int | None = None  # of the whole process
    problem: str | None = None

    def cells(self) -> tuple[str, ...]:
        """The row's texts, one for each of `COLUMNS`; several lines where it holds several arrays."""
        holds = [str(array) for array in self.arrays] + ([f"{self.num_files} files"] if self.num_files else [])
        return (
            self.stage,
            self.state,
            self.key[:8],
            self.implementation,
            self.problem or "\n".join(holds) or "-",
            "-" if self.size is None else decimal(self.size),
            "-" if self.seconds is None else f"{self.seconds:.1f}",
            "-" if self.peak_memory_mib is None else f"{self.peak_memory_mib:,} MiB",
            ", ".join(self.parents) or "input",
        )


def axis_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """The stored names of an array's axes; a repeated name, as in artifacts of early versions, gets a number."""
    names = cast(Sequence[str | None], array.metadata.to_dict().get("dimension_names") or [None] * array.ndim)
    unique: list[str] = []
    for axis, name in enumerate(names):
        base = name or f"axis{axis}"
        unique.append(base if base not in unique else f"{base}{1 + names[:axis].count(name)}")
    return tuple(unique)


def text_table(rows: Sequence[StageSummary]) -> str:
    """The rows in columns of plain text."""
    lines = [list(COLUMNS)]
    for row in rows:
        cells = [cell.split("\n") for cell in row.cells()]
        height = max(len(cell) for cell in cells)
        lines += [[cell[k] if k < len(cell) else "" for cell in cells] for k in range(height)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in NUMERIC else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def html_table(rows: Sequence[StageSummary]) -> str:
    """The rows as an HTML table, every text escaped."""
    numeric = dict.fromkeys(NUMERIC, ' class="number"')
    head = "".join(f'<th scope="col"{numeric.get(name, "")}>{name}</th>' for name in COLUMNS)
    body = "".join(_html_row(row) for row in rows)
    return f'<table class="stages"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _html_row(row: StageSummary) -> str:
    cells = zip(COLUMNS, row.cells(), strict=True)
    return "<tr>" + "".join(_html_cell(name, cell) for name, cell in cells) + "</tr>"


def _html_cell(name: str, text: str) -> str:
    content = escape(text).replace("\n", "<br>")
    if name == COLUMNS[0]:
        return f'<th scope="row">{content}</th>'
    return f'<td class="number">{content}</td>' if name in NUMERIC else f"<td>{content}</td>"
