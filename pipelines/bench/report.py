"""What came out of a benchmark: a table to read, and JSON to compare with another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("stage", "work", "layers", "seconds", "GFLOP", "of ceiling", "peak MiB", "naive / this")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The cost of a piece of work, or of one kind of layers in it.

    Attributes:
        stage: of a run.
        work: what of it.
        layers: their kind; "" for all of the work.
        seconds: of one call, the median.
        flop: of its matrix products and attention; 0 where nothing of that kind is counted.
        share: of the FLOP a second that matrix products reach on this device; None without arithmetic.
        peak_memory: bytes at the peak of a call; of the process on a CPU, of the device on CUDA; None for layers.
        ratio: seconds of the naive way over these, the median of neighboring calls; None where there is none.
    """

    stage: str
    work: str
    layers: str
    seconds: float
    flop: float
    share: float | None
    peak_memory: int | None
    ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows, and what they were measured on: versions, device, sizes, ceilings."""

    facts: Mapping[str, Any]
    rows: Sequence[Row]

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"facts": dict(self.facts), "rows": [asdict(row) for row in self.rows]}


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, under `COLUMNS`."""
    return (
        row.stage,
        row.work,
        row.layers or "all",
        f"{row.seconds:.4f}",
        f"{row.flop / 1e9:.1f}" if row.flop else "",
        f"{row.share:.0%}" if row.share is not None else "",
        f"{row.peak_memory / 2**20:,.0f}" if row.peak_memory is not None else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
    )
