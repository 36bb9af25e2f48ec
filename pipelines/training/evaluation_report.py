"""The report of an evaluation: report.json, report.md and contact sheets; images are (t, h, w, 3) float32, 0 to 1."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypedDict

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ss4d.pipelines.inspect.drawing import evenly
from ss4d.storage.files import write_bytes, write_json

MEASURES = {  # name -> (column, decimals)
    "psnr": ("novel-view PSNR, dB", 2),
    "ssim": ("novel-view SSIM", 3),
    "iou": ("occupancy IoU", 3),
    "input_psnr": ("input-view PSNR, dB", 2),
    "found_psnr": ("the same from the camera found, dB", 2),
    "flicker": ("flicker", 2),
    "motion_error": ("motion error", 2),
}
# What is compared with what, clip by clip, where both are measured.
RIVALS = {"mean shape": "model", "inflation": "model", "inflation, fitted": "model, both fitted"}
LPIPS = (
    "LPIPS is not reported: its weights cannot be had from an installable package. The package lpips brings the linear "
    "heads alone; the features come from an ImageNet network that torchvision downloads at run time."
)
NOTES = """Mean over clips ± its standard error. PSNR and SSIM are means over all other views and frames, over white.
Flicker: how much more the pictures change from frame to frame than the true ones (0: as much, -1: not at all). Motion
error: how far that change is off, over the true change (0: the same motion, 1: an object that stands still). The input
view has a light of its own, which no method is told; other views have a soft one. It is looked at from its
true camera, and from the one that a run finds and `cameras.json` holds. `docs/evaluation.md` defines all."""
SHEET_COLUMNS = 8  # frames shown, at most
MARGIN = 4  # around the names in contact sheets, pixels


class Mean(TypedDict):
    """A mean over clips and its standard error; None for the error of a single clip, which is not known."""

    mean: float
    error: float | None


@dataclass(frozen=True)
class Score:
    """What the methods scored on one clip: measures by method; None where a measure has no value."""

    clip: str
    family: str
    methods: Mapping[str, Mapping[str, float | None]]


def read_score(line: bytes) -> Score | None:
    """The scores that a line of JSON holds; None where it does not hold those of one clip, as after damage."""
    try:
        score = Score(**json.loads(line))
        rows = [dict(measures) for measures in score.methods.values()]
    except (ValueError, RecursionError, TypeError, AttributeError):  # no JSON, or of another form
        return None
    named = isinstance(score.clip, str) and isinstance(score.family, str)
    whole = all(row.keys() == MEASURES.keys() and all(map(_known, row.values())) for row in rows)
    return score if named and whole else None


def _known(value: object) -> bool:
    """Whether it is what a measure may give."""
    return value is None or (isinstance(value, float | int) and math.isfinite(value))


def write_report(out: Path, scores: Sequence[Score], settings: Mapping[str, Any], skipped: Mapping[str, str]) -> Path:
    """Writes report.json and report.md into `out`; gives the latter's path."""
    families = {family: [s for s in scores if s.family == family] for family in sorted({s.family for s in scores})}
    write_json(
        out / "report.json",
        {
            "settings": settings,
            "clips": [score.clip for score in scores],
            "skipped": skipped,
            "methods": summary(scores),
            "margins": margins(scores),
            "families": {name: {"clips": len(some), "methods": summary(some)} for name, some in families.items()},
            "lpips": LPIPS,
        },
    )
    path = out / "report.md"
    write_bytes(path, _markdown(scores, families, skipped).encode())
    return path


def summary(scores: Sequence[Score]) -> dict[str, dict[str, Mean | None]]:
    """Mean and standard error over clips of each measure of each method; None where no clip has a value."""
    return {
        method: {name: _mean([score.methods[method][name] for score in scores]) for name in MEASURES}
        for method in scores[0].methods
    }


def margins(scores: Sequence[Score]) -> dict[str, dict[str, Mean | None]]:
    """By how much the model is better than each baseline on the same clip: mean and standard error over clips.

    A baseline that is fitted is compared with the model that is fitted alike.
    """

    def margin(baseline: str, measure: str) -> Mean | None:
        pairs = [(s.methods[RIVALS[baseline]][measure], s.methods[baseline][measure]) for s in scores]
        return _mean([a - b for a, b in pairs if a is not None and b is not None])

    return {
        baseline: {measure: margin(baseline, measure) for measure in ("psnr", "ssim", "iou")}
        for baseline in RIVALS
        if baseline in scores[0].methods
    }


def _mean(values: Sequence[float | None]) -> Mean | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": fmean(known), "error": stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None}


def _markdown(scores: Sequence[Score], families: Mapping[str, Sequence[Score]], skipped: Mapping[str, str]) -> str:
    columns = [column for column, _ in MEASURES.values()]
    overall = summary(scores)
    parts = [
        f"# Evaluation on {len(scores)} held-out clips\n",
        _table(
            ["method", *columns],
            [
                [method, *(_cell(values[name], MEASURES[name][1]) for name in MEASURES)]
                for method, values in overall.items()
            ],
        ),
        NOTES + "\n",
        LPIPS + "\n",
    ]
    if "autoencoders" not in overall:
        parts.append("The autoencoders alone are not measured: the model folder has no encoders under `training/`.\n")
    if skipped:
        parts.append("\n".join(["Skipped:", *(f"- {reason}" for reason in skipped.values())]) + "\n")
    parts.append("## The model against the baselines, clip by clip\n")
    parts.append(
        _table(
            ["the model minus", *(MEASURES[name][0] for name in ("psnr", "ssim", "iou"))],
            [
                [name, *(_cell(value, MEASURES[m][1]) for m, value in row.items())]
                for name, row in margins(scores).items()
            ],
        )
    )
    for measure in ("psnr", "iou"):
        parts.append(f"## {MEASURES[measure][0]} by family\n")
        parts.append(
            _table(
                ["family", "clips", *overall],
                [
                    [name, str(len(some)), *(_cell(v[measure], MEASURES[measure][1]) for v in summary(some).values())]
                    for name, some in families.items()
                ],
            )
        )
    return "\n".join(parts)


def _cell(value: Mean | None, decimals: int) -> str:
    if value is None:
        return "-"
    mean, error = f"{value['mean']:.{decimals}f}", value["error"]
    return mean if error is None else f"{mean} ± {error:.{decimals}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_sheet(path: Path, rows: Mapping[str, Tensor]) -> None:
    """Writes a contact sheet: a row of frames over time for each name."""
    size = max(images.shape[1] for images in rows.values())
    times = evenly(len(next(iter(rows.values()))), SHEET_COLUMNS)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = math.ceil(max(ruler.textlength(name) for name in rows)) + 2 * MARGIN  # of the pictures
    sheet = Image.new("RGB", (left + size * len(times), size * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, images) in enumerate(rows.items()):
        draw.text((MARGIN, row * size + size // 2 - 6), name, fill="black")
        for column, t in enumerate(times):
            picture = Image.fromarray((images[t].numpy() * 255).round().astype(np.uint8)).resize((size, size))
            sheet.paste(picture, (left + column * size, row * size))
    sheet.save(path)
