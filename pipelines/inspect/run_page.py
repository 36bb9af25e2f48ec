"""The HTML of a run's page. `viewer/` holds its template, style and scripts."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from rich.filesize import decimal

from ss4d.pipelines.inspect.drawing import PAPER, Strip, evenly
from ss4d.pipelines.inspect.html import data_url, deflated, empty, fill
from ss4d.pipelines.inspect.media import StageFile
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.pipelines.inspect.splat_data import SplatData
from ss4d.pipelines.inspect.statistics import ArrayStatistics, bars
from ss4d.pipelines.inspect.summary import html_table
from ss4d.stages.html_page import json_element

FILM_CELLS = 12  # pictures of a strip that the page shows at once
COLUMNS = 8  # pictures of a strip beside each other in the one image it becomes
QUALITY = 85  # of that image, WebP
MOST_LISTED = 200  # files of a stage whose names the page lists
PANELS = ("Object", "Image tokens", "Voxels", "Latents")  # shown beside the viewer
VIEWER = """<div class="viewer">
<canvas id="canvas" tabindex="0" role="img" aria-label="The asset in 3D. Arrow keys turn it, plus and minus zoom, space
plays, comma and full stop step through the frames, 0 shows the front."></canvas>
<p id="status" role="status"></p></div>"""
HINT = (
    "Drag to turn, with shift to move, scroll or pinch to zoom. With the viewer in focus: arrows turn, + and - zoom, "
    "space plays, comma and full stop step, 0 shows the front."
)


@dataclass(frozen=True, kw_only=True)
class StageContent:
    """What a stage made, as far as the page shows it.

    Attributes:
        strips: its value in pictures over time.
        statistics: of its arrays, where there are no such pictures.
        files: all of them; pictures and videos with what shows them.
        numbers: its scalars and measures by name.
    """

    strips: Sequence[Strip] = ()
    statistics: Sequence[ArrayStatistics] = ()
    files: Sequence[StageFile] = ()
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Content:
    """What the page shows besides the record: what each stage made and the asset; a sentence where one is missing."""

    stages: Mapping[str, StageContent | str]
    asset: SplatData | str
    fps: float

    def films(self) -> dict[str, Strip]:
        """Every strip by a name of its own."""
        made = {stage: content for stage, content in self.stages.items() if isinstance(content, StageContent)}
        return {f"{stage}-{k}": strip for stage, content in made.items() for k, strip in enumerate(content.strips)}

    def num_frames(self) -> int:
        """Frames of the clip, as far as its contents tell; at least 1."""
        asset = 0 if isinstance(self.asset, str) else len(self.asset.frames)
        return max(1, asset, *(strip.times[-1] + 1 for strip in self.films().values()))


def html_page(run: OpenedRun, content: Content) -> str:
    """The whole page."""
    record, films = run.record, content.films()
    asset = content.asset if isinstance(content.asset, SplatData) else None
    parts = {
        "title": escape(record.name),
        "subtitle": escape(f"{record.state}, made from {record.input.path}"),
        "notice": f'<p class="notice">{escape(record.model.notice)}</p>' if record.model.notice else "",
        "viewer": VIEWER if asset else empty(f"No asset to show: {content.asset}"),
        "panels": _panels(films),
        "hint": _hint(content.asset),
        "last_frame": content.num_frames() - 1,
        "fps": f"{content.fps:g}",
        "strips": "".join(_stage(name, stage) for name, stage in content.stages.items()),
        "stages": html_table(run.summaries()),
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _facts(run).items()),
        "details": _details(run),
        "data": json_element(_page_data(content)),
        "asset": json_element([_frame_text(words) for words in asset.frames] if asset else []),
    }
    return fill(
        "page.html",
        parts,
        styles=("base.css", "page.css"),
        scripts=("common.js", "splats.js", "orbit.js", "page.js"),
        extra_style="".join(_sprite_style(name, strip) for name, strip in films.items()),
    )


def _page_data(content: Content) -> dict[str, Any]:
    """What the scripts need to know besides the asset's data."""
    asset = content.asset
    strips = [
        {"id": name, "times": list(strip.times), "columns": _grid(strip)[0], "rows": _grid(strip)[1]}
        for name, strip in content.films().items()
    ]
    bounds: dict[str, Any] | None = None
    if isinstance(asset, SplatData):
        bounds = {"origin": asset.origin, "extent": asset.extent, "log_scale": asset.log_scale}
        bounds |= {"num_frames": len(asset.frames)}
    return {"num_frames": content.num_frames(), "fps": content.fps, "strips": strips, "asset": bounds}


def _hint(asset: SplatData | str) -> str:
    if isinstance(asset, str):
        return ""
    left_out = asset.num_gaussians - asset.num_kept
    shown = f"{asset.num_gaussians:,} Gaussians in {len(asset.frames)} frames"
    return f"{shown}{f'; the {left_out:,} least visible are left out here' if left_out else ''}. {HINT}"


def _panels(films: Mapping[str, Strip]) -> str:
    """The strips beside the viewer, which show its current frame; the first of each title."""
    first: dict[str, str] = {}
    for name, strip in films.items():
        first.setdefault(strip.title, name)
    figures = [
        f'<figure><div class="panel {first[title]}" data-panel="{first[title]}" role="img" '
        f'aria-label="{title}, of the frame shown"></div><figcaption>{title}</figcaption></figure>'
        for title in PANELS
        if title in first
    ]
    return f'<div class="panels">{"".join(figures)}</div>' if figures else ""


def _stage(name: str, content: StageContent | str) -> str:
    if isinstance(content, str):
        return f"<h3>{escape(name)}</h3>{empty(content)}"
    numbers = ", ".join(f"{number} {value}" for number, value in content.numbers.items())
    parts = (
        f"<h3>{escape(name)}</h3>",
        f'<p class="hint">{escape(numbers)}</p>' if numbers else "",
        *(_film(f"{name}-{k}", strip) for k, strip in enumerate(content.strips)),
        _arrays(content.statistics),
        _files(content.files),
    )
    return "".join(parts)


def _arrays(statistics: Sequence[ArrayStatistics]) -> str:
    """A table of statistics, one row per array."""
    if not statistics:
        return ""
    columns = ("array", "type", "shape", "least", "most", "mean", "not finite", "spread", "meaning")
    rows = [
        (
            array.name,
            array.dtype,
            " x ".join(map(str, array.shape)),
            *("-" if number is None else f"{number:.6g}" for number in (array.least, array.most, array.mean)),
            str(array.num_nan + array.num_inf),
            f"|{bars(array.histogram)}|",
            array.meaning,
        )
        for array in statistics
    ]
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="arrays"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _files(files: Sequence[StageFile]) -> str:
    """The pictures and videos among the files, and the names of all."""
    if not files:
        return ""
    shown = "".join(_figure(file) for file in files if file.url)
    total = decimal(sum(file.size for file in files))
    names = "".join(f"<li>{escape(_line(file))}</li>" for file in files[:MOST_LISTED])
    more = f"<li>and {len(files) - MOST_LISTED} more</li>" if len(files) > MOST_LISTED else ""
    return (
        f'<div class="gallery">{shown}</div>'
        f"<details><summary>{len(files)} {'file' if len(files) == 1 else 'files'}, {total}</summary>"
        f'<ul class="files">{names}{more}</ul></details>'
    )


def _figure(file: StageFile) -> str:
    name = escape(file.name)
    if file.kind == "video":
        shown = f'<video src="{file.url}" controls muted loop preload="metadata" aria-label="{name}"></video>'
    else:
        shown = f'<img src="{file.url}" alt="{name}">'
    return f"<figure>{shown}<figcaption>{name}</figcaption></figure>"


def _line(file: StageFile) -> str:
    return f"{file.name}, {decimal(file.size)}{f' ({file.note})' if file.note else ''}"


def _film(name: str, strip: Strip) -> str:
    columns, rows = _grid(strip)
    cells = "".join(
        f'<div class="cell {name}" data-frame="{time}" title="frame {time + 1}" '
        f'style="background-position:{_share(k % columns, columns)}% {_share(k // columns, rows)}%"></div>'
        for k, time in ((k, strip.times[k]) for k in evenly(len(strip.times), FILM_CELLS))
    )
    caption = f"<b>{escape(strip.title)}</b>: {escape(strip.caption)}"
    label = escape(f"{strip.title}, frames in order of time")
    return (
        f'<figure class="strip" data-strip="{name}"><figcaption>{caption}</figcaption>'
        f'<div class="cells" role="img" aria-label="{label}">{cells}</div></figure>'
    )


def _sprite_style(name: str, strip: Strip) -> str:
    """A strip as one image, of which cells and panel show parts."""
    columns, rows = _grid(strip)
    size = strip.pictures.shape[1]
    sheet = Image.new("RGB", (columns * size, rows * size), PAPER)
    for k, picture in enumerate(strip.pictures):
        sheet.paste(Image.fromarray(picture), (k % columns * size, k // columns * size))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY)
    url = data_url(file.getvalue(), "image/webp")
    return f"\n.{name} {{ background-image: url({url}); background-size: {100 * columns}% {100 * rows}%; }}"


def _grid(strip: Strip) -> tuple[int, int]:
    """Columns and rows of the strip's image."""
    columns = min(len(strip.times), COLUMNS)
    return columns, -(-len(strip.times) // columns)


def _share(index: int, count: int) -> float:
    return round(100 * index / (count - 1), 4) if count > 1 else 0


def _facts(run: OpenedRun) -> dict[str, str]:
    """The record as names and texts."""
    record = run.record
    seconds = "" if record.wall_seconds is None else f", {record.wall_seconds:.1f} s"
    facts = {
        "State": record.state if record.error is None else f"{record.state}: {record.error}",
        "Input": f"{record.input.path} (SHA-256 {record.input.sha256})",
        "Started": f"{record.started}{seconds}",
        "Seed": str(record.seed),
        "Model": record.model.location,
        "Device": record.device,
        "Kernels": ", ".join(f"{part} {chosen.kernel}" for part, chosen in record.kernels.items()) or "not noted",
        "Engine": record.engine,
        "Machine": ", ".join(f"{name} {value}" for name, value in record.machine.items()),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    return facts | ({"Overrides": ", ".join(record.overrides)} if record.overrides else {})


def _details(run: OpenedRun) -> str:
    blocks = {f"Recipe of {name}": stage.record.recipe.model_dump() for name, stage in run.stages.items()}
    return "".join(
        f"<details><summary>{escape(title)}</summary>"
        f"<pre>{escape(yaml.safe_dump(block, sort_keys=False))}</pre></details>"
        for title, block in {"Configuration": run.record.config, **blocks}.items()
    )


def _frame_text(words: NDArray[np.uint32]) -> str:
    """One frame as base64 of deflated bytes; all rows' first bytes before all second ones, which deflates better."""
    planes = np.ascontiguousarray(words.view(np.uint8).T)
    return deflated(planes.tobytes())
