"""The report of a dataset: what its cards tell, what its pictures show, and that no text of the data can break it."""

import base64
import io
import json
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.manifest import Row, read_manifest
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.dataset.report import pictures as report_pictures
from ss4d.pipelines.dataset.report.report import Report, write_report
from ss4d.pipelines.dataset.report.sheet import read_sheet
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.values import scalars, write_value
from ss4d.stages.export.asset import export_asset
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Clip, GaussianClip, Value, silent
from ss4d.storage.manifest import write_rows
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore, open_store
from tests.helpers.dataset_history import KEYS, attempt, digest, happen, row
from tests.helpers.synthetic_sheet import STAGES, synthetic_gallery, synthetic_sheet
from tests.pipelines.inspect.test_report import HOSTILE, Page

RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.2, 0.9)


def ball(color: Sequence[float], num_frames: int = 3) -> GaussianClip:
    """A ball that grows."""
    n = 300
    random = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=random), dim=1)
    return GaussianClip(
        means=torch.cat([directions * (0.2 + 0.05 * t) for t in range(num_frames)]),
        scales=torch.full((n * num_frames, 3), 0.03),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n * num_frames, 1),
        colors=torch.tensor([list(color)]).repeat(n * num_frames, 1),
        opacities=torch.full((n * num_frames,), 0.9),
        offsets=torch.arange(num_frames + 1) * n,
    )


def cut_out() -> Clip:
    """Blue squares over nothing, smaller from frame to frame."""
    rgb, alpha = torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.zeros(4, 32, 32, dtype=torch.uint8)
    for t in range(4):
        alpha[t, 4 : 28 - 2 * t, 4 : 28 - 2 * t] = 255
        rgb[t, alpha[t] == 255] = torch.tensor([20, 40, 230], dtype=torch.uint8)
    crop, confidence = torch.tensor([0, 0, 32, 32]), torch.ones(4)
    return Clip(rgb=rgb, alpha=alpha, crop=crop, confidence=confidence, method="made", fps=12.0)


def ref(clip: str, stage: str) -> ArtifactRef:
    return ArtifactRef(stage, KEYS.of([digest(clip)])[stage][0])


def store_value(store: ArtifactStore, clip: str, stage: str, value: Value) -> None:
    with store.create(ref(clip, stage)) as writer:
        write_value(writer, value)
        writer.commit({"values": dict(scalars(value))})


def store_export(store: ArtifactStore, clip: str, gaussians: GaussianClip | None) -> None:
    """The export as it comes, or as that of a package that makes no turntable."""
    with store.create(ref(clip, "export")) as writer:
        if gaussians is None:
            (writer.folder / "asset.txt").write_text("something else")
        else:
            export_asset(ExportConfig(size=48, frames=9), gaussians, 12.0, writer.folder, render=rasterize)
        writer.commit({})


ROWS = (
    row("a", tags="bird,black", width=128),
    row("b", tags="bird", frames=7),
    row("c"),
    row("d"),
    row("bad", sha256=None, frames=0, width=0, height=0, fps=0.0, error="bad.mp4 is damaged"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of four, a is done; b is done by an exporter without a turntable; c failed after its first stage; d is to do."""
    made = create_dataset(tmp_path_factory.mktemp("set") / "my birds")
    write_rows(made.manifest, Row, ROWS)
    store = open_store(made.store)
    store_export(store, "a", ball(RED))
    store_export(store, "b", None)
    store_value(store, "b", "decoding", ball(GREEN))
    store_value(store, "c", "segmentation", cut_out())
    happen(made, *(attempt(clip, stage) for clip in "ab" for stage in STAGES), attempt("c", "segmentation"))
    happen(made, attempt("c", "slat", "failed", 5, message="steps:\n<b>too</b> many", number=1))
    (made.logs / "c.log").write_text("what happened")
    return made


@contextmanager
def opened(dataset: Dataset) -> Iterator[OpenedDataset]:
    with open_index(dataset) as index:
        yield OpenedDataset(dataset, Settings(overrides=["slat.sampler.steps=3"]), KEYS, read_manifest(dataset), index)


def report(dataset: Dataset, path: Path, **more: Any) -> Report:
    with opened(dataset) as asked:
        return write_report(asked, path, progress=more.pop("progress", silent), **more)


def parts(path: Path) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]:
    """The page, what its script is told, its clips in columns, and its pictures."""
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    data = json.loads(page.by_id["data"])
    clips = json.loads(zlib.decompress(base64.b64decode(data["clips"])))
    return html, data, clips, json.loads(page.by_id["pictures"])


@pytest.fixture(scope="module")
def page(dataset: Dataset) -> Path:
    return report(dataset, dataset.folder / "report.html").path


def strip(text: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.format == "WEBP"
    return np.asarray(image.convert("RGB")).astype(float) / 255


def middle(frames: np.ndarray, k: int) -> np.ndarray:
    """The color in the middle of a strip's frame."""
    size = report_pictures.SIZE
    return frames[size // 2 - 4 : size // 2 + 4, k * size + size // 2 - 4 : k * size + size // 2 + 4].mean((0, 1))


# What the cards tell


def test_every_clip_has_a_card_in_the_manifests_order(page: Path) -> None:
    _, data, clips, _ = parts(page)
    assert clips["id"] == ["a", "b", "c", "d", "bad"]
    assert clips["state"] == ["done", "done", "failed", "to do", "unreadable"]
    assert clips["tags"] == ["bird,black", "bird", "", "", ""]
    assert clips["logged"] == [False, False, True, False, False]
    assert data["logs"] == "logs"
    assert clips["failure"][2] == {
        "cause": "input",
        "error": "InputError",
        "stage": "slat",
        "message": "steps:\n<b>too</b> many",
    }
    assert clips["failure"][4]["message"] == "bad.mp4 is damaged"
    assert [clips["failure"][k] for k in (0, 1, 3)] == [None] * 3


def test_numbers_are_those_of_the_catalog(page: Path) -> None:
    _, _, clips, _ = parts(page)
    numbers = clips["numbers"]
    assert numbers["seconds"] == [15.0, 15.0, 5.0, None, None]  # six stages of 2.5 s, and one beside a failed one
    assert numbers["peak_memory"] == [100, 100, 100, None, None]
    assert numbers["voxels"] == [700, 700, None, None, None]
    assert numbers["gaussians"] == [9000, 9000, None, None, None]
    assert numbers["foreground"] == [0.25, 0.25, 0.25, None, None]
    assert numbers["frames"] == [4, 4, 4, 4, None]  # that the configuration chose; d's are the input's
    assert numbers["attempts"] == [1, 1, 1, None, None]
    assert numbers["width"] == [128, 64, 64, 64, None]
    assert list(clips["stages"]) == list(STAGES)
    slat = clips["stages"]["slat"]
    assert slat["state"] == ["done", "done", "failed", "to do", None]
    assert slat["key"] == [*(ref(clip, "slat").key for clip in "abcd"), None]


def test_failures_are_in_groups_with_their_clips(page: Path) -> None:
    html, data, clips, _ = parts(page)
    assert sorted(zip(data["groups"], clips["groups"], strict=True)) == [
        ("input · InputError · slat", [2]),
        ("input · Unreadable", [4]),
    ]
    assert "2 clips, by cause" in html
    assert "&lt;b&gt;too&lt;/b&gt; many" in html


def test_it_says_what_it_is_of(page: Path) -> None:
    shown = Page(page.read_text()).text
    assert "my birds" in shown
    assert "5 clips: 2 done, 1 failed, 1 unreadable, 1 to do" in shown
    assert "tiny, slat.sampler.steps=3, seed 42" in shown


def test_commands_are_fit_to_copy(page: Path, dataset: Dataset) -> None:
    _, data, _, _ = parts(page)
    words = ["--set", "slat.sampler.steps=3"]
    at = ["--out", str(dataset.folder), "--store", dataset.store]
    assert shlex.split(data["commands"]["run"]) == [*at, *words, "--engine", "direct"]
    retry = ["ss4d", "dataset", "retry", str(dataset.folder)]
    assert shlex.split(data["commands"]["retry"]) == [*retry, *words]


def test_where_chooses_the_clips(dataset: Dataset, tmp_path: Path) -> None:
    made = report(dataset, tmp_path / "some.html", where="state = 'failed' or tags like '%black%'")
    _, data, clips, _ = parts(made.path)
    assert clips["id"] == ["a", "c"]
    assert clips["groups"] == [[1]]
    assert "state = &#x27;failed&#x27; or" in made.path.read_text()
    assert data["logs"].startswith("..")
    with opened(dataset) as asked:
        assert read_sheet(asked, "id = 'nobody'").cards == []
        with pytest.raises(ConfigError, match="is not valid"):
            read_sheet(asked, "nonsense(")
    assert parts(report(dataset, tmp_path / "none.html", where="id = 'nobody'").path)[2]["id"] == []


# Pictures


def test_pictures_show_the_asset_or_else_what_was_cut_out(page: Path) -> None:
    _, _, clips, pictures = parts(page)
    assert clips["of_asset"] == [True, True, False, False, False]
    assert clips["picture"][3:] == [None, None]
    a, b, c = (strip(pictures[name]) for name in clips["picture"][:3])
    size = report_pictures.SIZE
    assert a.shape[0] == b.shape[0] == c.shape[0] == size
    assert [strip.shape[1] // size for strip in (a, b, c)] == [
        5,
        8,
        4,
    ]  # 9 pictures of the turntable: each second strip
    for frames, color in ((a, RED), (b, GREEN), (c, (0.08, 0.16, 0.9))):
        for k in range(frames.shape[1] // size):
            assert np.abs(middle(frames, k) - color).max() < 0.15
        assert frames[2, 2].min() > 0.95  # nothing there: white
    assert np.abs(a[:, :size] - a[:, -size:]).mean() > 0.005  # it grows


def test_a_picture_is_drawn_once(dataset: Dataset, page: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.pictures.rglob("*.webp")}
    assert len(before) == 3
    told: list[tuple[int, int]] = []
    made = report(dataset, tmp_path / "again.html", progress=lambda *done: told.append(done))
    assert told == [(0, 0)]
    assert made.pictures == 3
    assert {path: path.stat().st_mtime_ns for path in dataset.pictures.rglob("*.webp")} == before


def test_many_pictures_lie_beside_the_page(dataset: Dataset, page: Path, tmp_path: Path) -> None:
    made = report(dataset, tmp_path / "large.html", embedded=1000)
    html, data, clips, pictures = parts(made.path)
    assert made.folder == tmp_path / "large-pictures"
    assert (data["folder"], pictures) == ("large-pictures", {})
    names = [name for name in clips["picture"] if name]
    assert sorted(names) == sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*.webp"))
    assert made.folder_bytes == sum((made.folder / name).stat().st_size for name in names) > 1000
    assert "img-src data: 'self' file:;" in html
    own = report(dataset, dataset.folder / "report.html", embedded=1000)
    assert own.folder == dataset.pictures
    assert "img-src data:;" in report(dataset, page).path.read_text()


def test_pictures_are_drawn_by_processes(dataset: Dataset, page: Path, tmp_path: Path) -> None:
    """As they are in this one."""
    with opened(dataset) as asked:
        cards = read_sheet(asked).cards
    pictures = [picture for card in cards if (picture := report_pictures.picture_of(card)) is not None][::2]
    copies = [replace(picture, name=f"{k}/{k}.webp") for k, picture in enumerate(pictures * 25)]
    told: list[tuple[int, int]] = []
    problems = report_pictures.draw_pictures(
        copies, dataset.store, tmp_path, workers=2, progress=lambda *done: told.append(done)
    )
    assert problems == {}
    assert (told[0], told[-1]) == ((0, 50), (50, 50))
    for k, picture in enumerate(copies):
        drawn = dataset.pictures / pictures[k % 2].name
        assert (tmp_path / picture.name).read_bytes() == drawn.read_bytes()


def test_what_cannot_be_drawn_is_said_on_its_card(dataset: Dataset, tmp_path: Path) -> None:
    with opened(dataset) as asked:
        sheet = read_sheet(asked)
    gone, textual, good = (
        report_pictures.Picture((ArtifactRef(stage, key),), f"{name}.webp")
        for name, stage, key in (
            ("gone", "export", "0" * 64),
            ("textual", "export", ref("b", "export").key),
            ("good", "export", ref("a", "export").key),
        )
    )
    problems = report_pictures.draw_pictures(
        [gone, textual, good], dataset.store, tmp_path, workers=None, progress=silent
    )
    assert sorted(problems) == ["gone.webp", "textual.webp"]
    assert "has no turntable.mp4" in problems["textual.webp"]
    assert [path.name for path in tmp_path.iterdir()] == ["good.webp"]
    assert len(sheet.cards) == 5


def test_a_picture_is_named_by_what_it_shows(dataset: Dataset) -> None:
    with opened(dataset) as asked:
        a, b, c, d, bad = (report_pictures.picture_of(card) for card in read_sheet(asked).cards)
    assert a is not None
    assert b is not None
    assert c is not None
    assert (d, bad) == (None, None)
    assert len({picture.name for picture in (a, b, c)}) == 3
    assert [ref.stage for ref in a.refs] == ["export", "decoding"]
    assert [ref.stage for ref in c.refs] == ["segmentation"]


# What the page is made of


def test_the_page_asks_for_nothing_from_elsewhere(page: Path) -> None:
    html = page.read_text()
    loaded = re.sub(r"(?s)<script[^>]*>.*?</script>", "", html)
    assert "//" not in loaded
    for tag, attributes in Page(html).tags:
        assert "src" not in attributes
        assert tag != "link" or attributes["href"] == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in loaded
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" in html


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    from ss4d.pipelines.dataset.report.sheet_page import html_sheet

    sheet = synthetic_sheet(tmp_path / HOSTILE.replace("/", "|"), 20)
    cards = [
        replace(
            card,
            row=replace(card.row, id=f"{HOSTILE}{k}", source=HOSTILE, tags=HOSTILE),
            failure=card.failure and replace(card.failure, error=HOSTILE, message=HOSTILE, cause=HOSTILE),
        )
        for k, card in enumerate(sheet.cards)
    ]
    groups = [replace(group, clips=[f"{HOSTILE}9"], message=HOSTILE, error=HOSTILE) for group in sheet.groups]
    bad = replace(sheet, cards=cards, groups=groups, where=HOSTILE, stages=(HOSTILE, *STAGES[1:]))
    gallery = replace(synthetic_gallery(bad, [b"x"]), problems={HOSTILE: HOSTILE})
    html = html_sheet(bad, gallery, tmp_path)
    plain = Page(html_sheet(sheet, synthetic_gallery(sheet, [b"x"]), tmp_path))
    shown = Page(html)
    assert [tag for tag, _ in shown.tags].count("script") == [tag for tag, _ in plain.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in shown.tags]
    assert shown.text.count(HOSTILE) >= 4
    assert json.loads(shown.by_id["data"])["problems"] == {HOSTILE: HOSTILE}


# The command


def test_the_command_writes_the_page(dataset: Dataset, tmp_path: Path) -> None:
    """It tells about the default configuration, whose keys are others: all is to do, but what cannot be read."""
    done = CliRunner().invoke(app, ["dataset", "report", str(dataset.folder), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert f"Page: {tmp_path / 'page.html'} (5 clips, " in done.output
    assert parts(tmp_path / "page.html")[2]["state"] == [*["to do"] * 4, "unreadable"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--workers", "0"], "--workers must be at least 1; got 0"),
        (["--where", "frames >"], "is not valid"),
        (["--config", "nothing"], "nothing"),
    ],
)
def test_the_command_says_what_is_wrong(dataset: Dataset, tmp_path: Path, words: list[str], sentence: str) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["dataset", "report", str(dataset.folder), "--out", str(out), *words])
    assert done.exit_code == 1
    assert sentence in done.output
    assert not out.exists()
