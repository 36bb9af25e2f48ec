"""The HTML of a dataset's report. `pipelines/inspect/viewer` holds its template, style and scripts."""

import base64
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from rich.filesize import decimal

from ss4d.pipelines.dataset.catalog import DONE, FAILED, NOT_NEEDED, TO_DO
from ss4d.pipelines.dataset.failures import Group
from ss4d.pipelines.dataset.report.sheet import NUMBERS, STATES, Sheet, sheet_data
from ss4d.pipelines.inspect.html import deflated, fill
from ss4d.stages.html_page import json_element

MESSAGES = 3  # the most frequent messages of a group of failures that are shown
STAGE_STATES = (DONE, FAILED, TO_DO, NOT_NEEDED)
STAGE_COLUMNS = ("stage", *STAGE_STATES, "median seconds", "hours in all", "peak memory")


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of a page.

    Attributes:
        names: of each card's picture, as in the folder of pictures; None for a card without one.
        of_asset: for each card, whether its picture shows the asset.
        problems: why pictures cannot be drawn, by name.
        embedded: the files' bytes by name, if they are embedded in the page.
        folder: the one beside the page that holds them otherwise.
    """

    names: Sequence[str | None]
    of_asset: Sequence[bool]
    problems: Mapping[str, str]
    embedded: Mapping[str, bytes]
    folder: str | None


def html_sheet(sheet: Sheet, gallery: Gallery, beside: Path) -> str:
    """The whole page.

    Args:
        sheet: its content.
        gallery: its pictures.
        beside: the folder of the page; links are relative to it.
    """
    counts = Counter(card.state for card in sheet.cards)
    parts = {
        "title": escape(sheet.dataset.folder.name),
        "subtitle": escape(_subtitle(sheet, counts)),
        "notice": f'<p class="notice">Only clips where {escape(sheet.where)}</p>' if sheet.where else "",
        "failures": _failures(sheet),
        "stages": _stages(sheet),
        "image_source": "data:"
        if gallery.folder is None
        else "data: 'self' file:",  # in some browsers, files are not 'self'
        "data": json_element(_page_data(sheet, gallery, beside)),
        "pictures": json_element({name: base64.b64encode(data).decode() for name, data in gallery.embedded.items()}),
    }
    return fill(
        "sheet.html",
        parts,
        styles=("base.css", "sheet.css"),
        scripts=("common.js", "columns.js", "details.js", "sheet.js"),
    )


def _page_data(sheet: Sheet, gallery: Gallery, beside: Path) -> dict[str, Any]:
    """The data of the scripts; the clips, which are many, are deflated."""
    clips = sheet_data(sheet)
    clips |= {"picture": gallery.names, "of_asset": gallery.of_asset}
    folder, words = str(sheet.dataset.folder), sheet.settings.words()
    return {
        "states": STATES,
        "numbers": {name: {"title": title, "format": form} for name, (title, form) in NUMBERS.items()},
        "folder": gallery.folder,
        "problems": dict(gallery.problems),
        "logs": quote(os.path.relpath(sheet.dataset.logs, beside)),
        "groups": [" · ".join(filter(None, (group.cause, group.error, group.stage))) for group in sheet.groups],
        "commands": {
            "run": shlex.join(["--out", folder, "--store", sheet.dataset.store, *words, "--engine", "direct"]),
            "runs": os.path.join(folder, "runs"),
            "retry": shlex.join(["ss4d", "dataset", "retry", folder, *words]),
        },
        "clips": deflated(json.dumps(clips, allow_nan=False).encode()),
    }


def _subtitle(sheet: Sheet, counts: Mapping[str, int]) -> str:
    states = ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts.get(state))
    settings = sheet.settings
    configuration = ", ".join([settings.configuration, *settings.overrides, f"seed {settings.seed}"])
    made = sheet.made[:16].replace("T", " ")
    return f"{_clips(len(sheet.cards))}: {states or 'none'}. Configuration: {configuration}. Made {made} UTC."


def _failures(sheet: Sheet) -> str:
    """A row for each group of failures, with the button that shows its clips."""
    if not sheet.groups:
        return ""
    messages = {card.row.id: card.failure.message for card in sheet.cards if card.failure is not None}
    head = "".join(f'<th scope="col">{name}</th>' for name in ("cause", "error", "stage", "clips", "messages"))
    rows = "".join(_group_row(number, group, messages) for number, group in enumerate(sheet.groups))
    num_clips = len({clip for group in sheet.groups for clip in group.clips})
    return (
        f'<details class="block" open><summary><h2>What failed</h2> {_clips(num_clips)}, by cause</summary>'
        '<div class="wide tall" role="region" aria-label="What failed" tabindex="0">'
        f'<table class="failures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _group_row(number: int, group: Group, messages: Mapping[str, str]) -> str:
    clips = list(dict.fromkeys(group.clips))
    first = {messages.get(clip, group.message): clip for clip in reversed(clips)}
    counts = Counter(messages.get(clip, group.message) for clip in clips)
    examples = "".join(
        f"<li>{escape(text)} <span>{_whose(count, first[text])}</span></li>"
        for text, count in counts.most_common(MESSAGES)
    )
    others = len(clips) - sum(count for _, count in counts.most_common(MESSAGES))
    more = f"<li><span>and {others:,} more</span></li>" if others else ""
    return (
        f'<tr><td><span class="badge cause">{escape(group.cause)}</span></td><th scope="row">{escape(group.error)}</th>'
        f"<td>{escape(group.stage) or '-'}</td>"
        f'<td><button type="button" data-group="{number}">Show {len(clips):,}</button></td>'
        f"<td><ul>{examples}{more}</ul></td></tr>"
    )


def _whose(count: int, first: str) -> str:
    return escape(first) if count == 1 else f"{_clips(count)}, such as {escape(first)}"


def _clips(count: int) -> str:
    return f"{count:,} clip{'' if count == 1 else 's'}"


def _stages(sheet: Sheet) -> str:
    head = "".join(f'<th scope="col"{_number(name != "stage")}>{name}</th>' for name in STAGE_COLUMNS)
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th>'
        + "".join(f'<td class="number">{cell}</td>' for cell in _stage_cells(sheet, column))
        + "</tr>"
        for column, stage in enumerate(sheet.stages)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        '<details class="block"><summary><h2>Stages</h2> clips by state, time and memory</summary>'
        f'<div class="wide" role="region" aria-label="Stages" tabindex="0">{table}</div></details>'
    )


def _stage_cells(sheet: Sheet, column: int) -> list[str]:
    entries = [card.entries[column] for card in sheet.cards if card.entries]
    states = Counter(entry.state for entry in entries)
    seconds = [entry.seconds for entry in entries if entry.state == DONE and entry.seconds is not None]
    memory = max((entry.peak_memory for entry in entries if entry.peak_memory), default=None)
    return [
        *(f"{states[state]:,}" for state in STAGE_STATES),
        f"{median(seconds):.2f}" if seconds else "-",
        f"{sum(seconds) / 3600:.2f}",
        "-" if memory is None else decimal(memory),
    ]


def _number(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
