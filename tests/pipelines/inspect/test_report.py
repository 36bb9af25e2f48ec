"""The page of a run: what it holds, that it holds nothing foreign, and that what it was given cannot break it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.inspect.pictures import Pictures
from ss4d.pipelines.inspect.report import write_report
from ss4d.pipelines.inspect.splat_data import SplatData, pack_splats
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.types import GaussianClip
from tests.conftest import Silent

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'${title}"


class Page(HTMLParser):
    """The tags of a page, the text of its elements by id, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.by_id: dict[str, str] = {}
        self.text = ""
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.by_id[self._open] = self.by_id.get(self._open, "") + data
        if self._open not in ("script", "style", "data", "asset"):  # those are not shown
            self.text += data


def page_of(run: Path, folder: Path) -> tuple[str, Page]:
    path = folder / "page.html"
    write_report(open_run(run), path, lambda part: None)
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return page_of(finished_run, tmp_path_factory.mktemp("page"))


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run.parents[1], tmp_path / "out")
    return tmp_path / "out" / "runs" / finished_run.name


def clip_of(counts: list[int], seed: int = 0) -> GaussianClip:
    random = torch.Generator().manual_seed(seed)
    n = sum(counts)
    return GaussianClip(
        means=torch.rand(n, 3, generator=random) - 0.5,
        scales=torch.exp(torch.rand(n, 3, generator=random) * 5 - 7),
        quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=random), dim=1),
        colors=torch.rand(n, 3, generator=random) * 1.2 - 0.1,
        opacities=torch.rand(n, generator=random) * 0.9 + 0.1,
        offsets=torch.tensor([0, *counts]).cumsum(0),
    )


def unpacked(data: SplatData, t: int) -> GaussianClip:
    """What the viewer's shader makes of frame `t`."""
    a, b, c, d = data.frames[t].astype(np.int64).T
    low, high = data.log_scale
    position = np.stack([a & 65535, a >> 16, b & 65535], axis=-1) / 65535
    scale = np.stack([b >> 16 & 255, b >> 24, c & 255], axis=-1) / 255
    bits = d >> 24 << 16 | c >> 16
    rest = (np.stack([bits >> 14 & 127, bits >> 7 & 127, bits & 127], axis=-1) / 126 * 2 - 1) * np.sqrt(0.5)
    quats = np.zeros((len(a), 4))
    for row, largest in enumerate(bits >> 21):
        quats[row] = np.insert(rest[row], largest, np.sqrt(max(0.0, 1 - (rest[row] ** 2).sum())))
    return GaussianClip(
        means=torch.from_numpy(data.origin + np.array(data.extent) * position).float(),
        scales=torch.from_numpy(np.exp(low + (high - low) * scale)).float(),
        quats=torch.from_numpy(quats).float(),
        colors=torch.from_numpy(np.stack([d & 255, d >> 8 & 255, d >> 16 & 255], axis=-1) / 255).float(),
        opacities=torch.from_numpy((c >> 8 & 255) / 255).float(),
        offsets=torch.tensor([0, len(a)]),
    )


def test_packing_keeps_numbers_within_a_step() -> None:
    clip = clip_of([300, 0, 500])
    data = pack_splats(clip)
    assert (data.num_gaussians, data.num_kept) == (800, 800)
    for t in range(3):
        frame, packed = clip.frame(t), unpacked(data, t)
        torch.testing.assert_close(packed.means, frame.means, atol=1e-5, rtol=0)
        torch.testing.assert_close(packed.scales.log(), frame.scales.log(), atol=0.02, rtol=0)
        torch.testing.assert_close(packed.colors, frame.colors.clamp(0, 1), atol=0.51 / 255, rtol=0)
        torch.testing.assert_close(packed.opacities, frame.opacities, atol=0.51 / 255, rtol=0)
        turned = quaternion_to_matrix(packed.quats) - quaternion_to_matrix(frame.quats)
        assert turned.abs().max() < 0.04 if len(turned) else True


def test_of_too_many_the_most_visible_stay_in_order() -> None:
    clip = clip_of([100, 100])
    data = pack_splats(clip, at_most=20)
    assert [len(frame) for frame in data.frames] == [10, 10]
    frame = clip.frame(1)
    seen = frame.scales.topk(2, dim=1).values.prod(1) * frame.opacities
    wanted = frame.means[seen.topk(10).indices.sort().values]
    torch.testing.assert_close(unpacked(data, 1).means, wanted, atol=1e-5, rtol=0)


def test_what_cannot_be_drawn_is_left_out() -> None:
    clip = clip_of([4])
    clip.opacities[0] = 0.001
    clip.means[1, 2] = torch.nan
    assert pack_splats(clip).num_kept == 2
    assert pack_splats(clip_of([0, 0])).num_kept == 0


def test_the_page_holds_the_asset(page: tuple[str, Page], finished_run: Path) -> None:
    clip = open_run(finished_run)["decoding"].value()
    assert isinstance(clip, GaussianClip)
    texts = json.loads(page[1].by_id["asset"])
    expected = pack_splats(clip).frames
    assert len(texts) == len(expected) == 4
    for text, words in zip(texts, expected, strict=True):
        planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(16, -1)
        np.testing.assert_array_equal(np.ascontiguousarray(planes.T).view("<u4"), words)


def test_the_page_tells_the_record_and_shows_every_stage(page: tuple[str, Page], finished_run: Path) -> None:
    run, text = open_run(finished_run), page[1].text
    for word in (run.record.name, run.record.input.sha256, str(run.record.seed), run.record.versions["torch"]):
        assert word in text
    assert "slat.sampler.steps=2" in text
    for title in ("Object", "Mask", "Image tokens", "Voxels", "Latents", "Front", "Back"):
        assert title in text
    for name, stage in run.stages.items():
        assert name in text
        assert stage.ref.key[:8] in text


def test_the_page_shows_the_turntable(page: tuple[str, Page], finished_run: Path) -> None:
    (video,) = [attributes for tag, attributes in page[1].tags if tag == "video"]
    data = base64.b64decode(str(video["src"]).removeprefix("data:video/mp4;base64,"))
    assert data == (finished_run / "turntable.mp4").read_bytes()


def test_the_page_asks_for_nothing_from_elsewhere(page: tuple[str, Page]) -> None:
    html, parsed = page
    loaded = re.sub(r"(?s)<script[^>]*>.*?</script>|data:[^\")]*", "", html)
    assert "//" not in loaded
    for tag, attributes in parsed.tags:
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert tag != "link" or attributes["href"] == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    assert re.findall(r"url\((?!data:image/webp)", html) == []


def test_only_the_script_whose_hash_the_policy_gives_may_run(page: tuple[str, Page]) -> None:
    html, parsed = page
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    for of in ("default-src", "base-uri", "form-action"):
        assert f"{of} 'none'" in policy


def test_hostile_text_stays_text(copy: Path, tmp_path: Path) -> None:
    content = json.loads((copy / "run.json").read_text())
    content |= {"name": HOSTILE, "state": HOSTILE, "error": HOSTILE, "overrides": [HOSTILE], "device": HOSTILE}
    content["input"]["path"] = content["model"]["notice"] = HOSTILE
    content["versions"] = content["machine"] = {HOSTILE: HOSTILE}
    content["config"]["export"] = {HOSTILE: HOSTILE}
    content["stages"]["slat"]["recipe"]["implementation"] = HOSTILE
    (copy / "run.json").write_text(json.dumps(content))
    _, page = page_of(copy, tmp_path)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in page.tags]
    assert page.by_id["title"].startswith(HOSTILE)
    assert page.text.count(HOSTILE) >= 8


def test_what_a_run_lacks_is_said_on_its_page(copy: Path, tmp_path: Path) -> None:
    for name in ("conditioning", "decoding"):
        stage = open_run(copy)[name]
        stage.store.remove(stage.ref)
    _, page = page_of(copy, tmp_path)
    assert "No asset to show" in page.text
    assert "a run with --force conditioning makes it again" in page.text
    assert "Voxels" in page.text
    assert json.loads(page.by_id["asset"]) == []
    assert json.loads(page.by_id["data"])["num_frames"] == 4


def test_the_command_writes_the_page_into_the_runs_folder(copy: Path) -> None:
    command = [sys.executable, "-m", "ss4d.cli.entry", "report", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert str(copy / "report.html") in done.stderr.replace("\n", "")
    assert (copy / "report.html").read_text().startswith("<!doctype html>")


def test_a_fit_is_shown_before_and_after(clip: Path, tmp_path: Path) -> None:
    options = RunOptions(
        source=clip,
        out=tmp_path,
        overrides=(
            "decoding.method=inflation",
            "decoding.resolution=24",
            "camera.method=auto",
            "appearance_fit.method=gaussians",
            "appearance_fit.steps=2",
            "appearance_fit.size=24",
            "segmentation.size=64",
            "export.size=64",
            "export.frames=4",
        ),
        device="cpu",
        engine="direct",
    )
    opened = open_run(run_clip(options, Silent()))
    strips = Pictures(opened, at_most=2, size=64).strips("appearance_fit")
    sides = ("Input view", "60 degrees to the right", "60 degrees to the left")
    views = [f"{side}, {word}" for side in sides for word in ("before", "after")]
    assert [strip.title for strip in strips] == ["Input", *views, "Loss"]
    assert (strips[-1].pictures != 250).any()
    write_report(opened, tmp_path / "page.html", lambda _: None)
    page = (tmp_path / "page.html").read_text()
    assert all(word in page for word in ("Input view, after", "Loss", "appearance_fit", "camera"))
