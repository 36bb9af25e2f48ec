"""Statistics of arrays: range, mean, histogram, and how many numbers are not finite."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.pipelines.inspect.opened import OpenedStage
from ss4d.pipelines.inspect.summary import axis_names

NUM_BINS = 24
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class ArrayStatistics:
    """An array's description and statistics; range, mean and histogram are those of its finite numbers.

    `histogram` counts numbers in bins of equal width from `least` to `most`; both are None where nothing is finite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    meaning: str
    least: float | None
    most: float | None
    mean: float | None
    num_nan: int
    num_inf: int
    histogram: tuple[int, ...]


def array_statistics(stage: OpenedStage) -> list[ArrayStatistics]:
    """The statistics of each of a stage's arrays, which are read whole, one after another.

    Raises:
        StoreError: if the stage is not stored, or damaged.
    """
    return [_statistics(stage, name) for name in stage.arrays()]


def _statistics(stage: OpenedStage, name: str) -> ArrayStatistics:
    stored = stage[name]
    attributes: Mapping[str, Any] = stored.attrs
    values = stage.artifact.read(name)
    num_nan, num_inf, finite = _finite(values)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return ArrayStatistics(
        name=name,
        dtype=stored.dtype.name,
        shape=stored.shape,
        dims=axis_names(stored),
        chunks=stored.chunks,
        meaning=str(attributes.get("meaning", "")),
        least=low,
        most=high,
        mean=float(finite.mean(dtype=np.float64)) if finite.size else None,
        num_nan=num_nan,
        num_inf=num_inf,
        histogram=_histogram(finite),
    )


def _finite(values: NDArray[Any]) -> tuple[int, int, NDArray[Any]]:
    """How many numbers are not-a-number, how many infinite, and the others."""
    if values.dtype.kind != "f":
        return 0, 0, values.astype(np.uint8) if values.dtype.kind == "b" else values
    num_nan, num_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return num_nan, num_inf, values if num_nan + num_inf == 0 else values[np.isfinite(values)]


def _histogram(finite: NDArray[Any]) -> tuple[int, ...]:
    if not finite.size:
        return ()
    # As float64: the width of the range may not fit the array's own type.
    low, high = float(finite.min()), float(finite.max())
    counts, _ = np.histogram(finite.astype(np.float64, copy=False), NUM_BINS, (low, high))
    return tuple(int(count) for count in counts)


def bars(histogram: tuple[int, ...]) -> str:
    """The counts as a line of bars, the fullest bin the highest; a space is a bin with nothing in it."""
    fullest = max(histogram, default=0)
    return "".join(" " if not n else BARS[min(len(BARS) * n // (fullest + 1), len(BARS) - 1)] for n in histogram)
