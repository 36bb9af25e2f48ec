"""What a training run leaves to look at: log.jsonl with a line for each step, curves as SVG, pictures as PNG.

Pictures are (h, w, 3) uint8.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.training.files import write_whole

Row = Mapping[str, float]  # "step", "loss", and whatever else was measured

WIDTH, HEIGHT, LEFT, TOP = 640, 180, 70, 24  # of one curve, with room for labels, in pixels
POINTS = 320  # that a curve is averaged to


class Log:
    """The lines of log.jsonl in `folder`, from the first step to `step`; what lies beyond is cut off."""

    def __init__(self, folder: Path, step: int) -> None:
        self._file = folder / "log.jsonl"
        self.rows: list[Row] = [row for row in read_log(folder) if row["step"] <= step]
        write_whole(self._file, "".join(map(_line, self.rows)).encode())

    def add(self, rows: Sequence[Row]) -> None:
        """Appends rows, oldest first."""
        self.rows += rows
        with self._file.open("a") as stream:
            stream.write("".join(map(_line, rows)))


def read_log(folder: Path) -> list[Row]:
    """The rows of a log; the last line may be cut off where the run was killed.

    Raises:
        InputError: naming the line, if another one is damaged.
    """
    file = folder / "log.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return [_row(file, number, line) for number, line in enumerate(lines, start=1) if line.endswith(b"\n")]


def _row(file: Path, number: int, line: bytes) -> Row:
    try:
        row: Row = json.loads(line)
        if "step" in row:
            return row
    except (ValueError, TypeError):
        pass
    raise InputError(f"line {number} of {file} is damaged; delete that line, and the training goes on")


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def write_curves(file: Path, rows: Sequence[Row]) -> None:
    """Draws every measure of the rows against the step, one below the other, on a logarithmic axis where it can."""
    names = [name for name in rows[-1] if name != "step"]
    charts = []
    for i, name in enumerate(names):
        points = _averaged([(row["step"], row[name]) for row in rows if name in row and math.isfinite(row[name])])
        if points:
            charts.append(f'<g transform="translate(0 {i * HEIGHT})">{_chart(name, points)}</g>')
    size = f'width="{WIDTH}" height="{HEIGHT * len(names)}"'
    style = "<style>text{font:11px sans-serif;fill:#444}path{fill:none;stroke:#16c}line{stroke:#ccc}</style>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size} fill="#fff"/>{style}'
    write_whole(file, f"{head}{''.join(charts)}</svg>\n".encode(), durable=False)


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of as many neighbors."""
    size = math.ceil(len(points) / POINTS)
    chunks = [points[i : i + size] for i in range(0, len(points), max(size, 1))]
    return [(sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def _chart(name: str, points: Sequence[tuple[float, float]]) -> str:
    low, high = min(y for _, y in points), max(y for _, y in points)
    logarithmic = low > 0 and high > 3 * low
    first, last = points[0][0], points[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low or 1)
        across = (x - first) / (last - first or 1)
        return LEFT + across * (WIDTH - LEFT - 10), HEIGHT - 20 - share * (HEIGHT - 20 - TOP)

    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    ticks = []
    for value in (low, middle, high):
        _, y = place(first, value)
        ticks.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        ticks.append(f'<text x="4" y="{y + 4:.1f}">{value:.4g}</text>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    labels = f'<text x="{LEFT}" y="14">{name}</text><text x="{WIDTH - 90}" y="{HEIGHT - 5}">step {last:.0f}</text>'
    return f'{"".join(ticks)}<path d="M {path}"/>{labels}'


def write_png(file: Path, picture: Tensor) -> None:
    """Writes an RGB picture (h, w, 3) uint8."""
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture.cpu().contiguous().numpy())  # 0: no prediction

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    write_whole(file, b"\x89PNG\r\n\x1a\n" + parts, durable=False)
