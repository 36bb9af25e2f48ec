"""A dataset's report of as many clips as one likes, with no dataset behind it: states, numbers and failures by rule."""

import random
from collections.abc import Sequence
from pathlib import Path

from ss4d.pipelines.dataset.catalog import DONE, FAILED, TO_DO, UNREADABLE, Entry
from ss4d.pipelines.dataset.failures import Group
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.report.sheet import Card, Failure, Sheet
from ss4d.pipelines.dataset.report.sheet_page import Gallery
from ss4d.storage.refs import artifact_key

STAGES = ("segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export")
FAILURES = (
    Failure(cause="input", error="InputError", stage="segmentation", message="It shows no object in any frame."),
    Failure(cause="killed", error="TimeLimit", stage="slat", message="took more than 600 s, and was ended twice"),
    Failure(
        cause="killed", error="WorkerDied", stage="", message="its worker ended with signal 11 (Segmentation fault)"
    ),
    Failure(cause="program", error="ZeroDivisionError", stage="decoding", message="division by zero"),
)
NOT_READ = Failure(cause="input", error="Unreadable", stage="", message="it is no video: moov atom not found")


def state_of(number: int) -> str:
    """Of each hundred clips 2 cannot be read, 5 failed, 3 are to do."""
    place = number % 100
    if place in (13, 77):
        return UNREADABLE
    return FAILED if place % 20 == 9 else TO_DO if place in (30, 31, 32) else DONE


def entry(clip: str, stage: str, done: bool, chance: random.Random) -> Entry:
    return Entry(
        id=clip,
        stage=stage,
        state=DONE if done else TO_DO,
        key=artifact_key({"clip": clip, "stage": stage}),
        seconds=round(chance.lognormvariate(STAGES.index(stage) - 1, 0.6), 3) if done else None,
        peak_memory=chance.randrange(900, 4000) << 20 if done else None,
        attempts=1 if done else 0,
        error=None,
        message=None,
        cause=None,
        worker="host:1" if done else None,
        measures={
            "voxels": chance.randrange(2_000, 40_000) if done and stage == "sparse_structure" else None,
            "gaussians": chance.randrange(60_000, 900_000) if done and stage == "decoding" else None,
            "foreground": round(chance.uniform(0.05, 0.6), 6) if done and stage == "segmentation" else None,
            "confidence": 0.9 if done and stage == "segmentation" else None,
            "frames": chance.choice([8, 16, 32]) if done and stage == "segmentation" else None,
        },
        versions=None,
        seed=42,
    )


def card(number: int, chance: random.Random) -> Card:
    state = state_of(number)
    clip = f"clip{number}"
    kind = ("bird", "fish", "fox", "tree", "toy")[number % 5]
    failure = {FAILED: FAILURES[number // 20 % len(FAILURES)], UNREADABLE: NOT_READ}.get(state)
    row = Row(
        id=clip,
        source=f"/videos/{kind}/{clip}.mp4",
        sha256=None if state == UNREADABLE else artifact_key({"clip": clip}),
        bytes=chance.randrange(10_000, 4_000_000),
        modified=0,
        frames=0 if state == UNREADABLE else 32,
        width=0 if state == UNREADABLE else 640,
        height=0 if state == UNREADABLE else 480,
        fps=24.0,
        tags=f"{kind},{'wild' if number % 3 else 'tame'}",
        error=NOT_READ.message if state == UNREADABLE else None,
    )
    reached = len(STAGES) if state == DONE else 1 if state == FAILED else 0
    entries = tuple(entry(clip, stage, k < reached, chance) for k, stage in enumerate(STAGES))
    return Card(
        row=row, state=state, failure=failure, entries=() if state == UNREADABLE else entries, logged=state != TO_DO
    )


def synthetic_sheet(folder: Path, num_clips: int) -> Sheet:
    """The sheet; the same for the same number."""
    chance = random.Random(7)
    cards = [card(number, chance) for number in range(num_clips)]
    groups = [
        Group(
            failure.cause,
            failure.error,
            failure.stage,
            [card.row.id for card in cards if card.failure == failure],
            failure.message,
        )
        for failure in (*FAILURES, NOT_READ)
    ]
    return Sheet(
        dataset=Dataset(folder, str(folder / "store")),
        settings=Settings(overrides=["slat.sampler.steps=25"]),
        where=None,
        stages=STAGES,
        cards=cards,
        groups=[group for group in groups if group.clips],
        made="2026-01-02T03:04:05.000+00:00",
    )


def synthetic_gallery(sheet: Sheet, strips: Sequence[bytes], folder: Path | None = None) -> Gallery:
    """The strips again and again for all clips that have come so far; in the page, or written into a folder."""
    names = [f"{number:02}/strip.webp" for number in range(len(strips))]
    shown = [card.state in (DONE, FAILED) for card in sheet.cards]
    if folder is not None:
        for name, strip in zip(names, strips, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(strip)
    return Gallery(
        names=[names[number % len(names)] if one else None for number, one in enumerate(shown)],
        of_asset=[card.state == DONE for card in sheet.cards],
        problems={},
        embedded=dict(zip(names, strips, strict=True)) if folder is None else {},
        folder=None if folder is None else folder.name,
    )
