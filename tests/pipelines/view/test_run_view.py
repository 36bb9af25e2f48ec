"""`ss4d view` as a user has it: the command, its page in a real headless browser, and what it answers to others."""

import gzip
import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.inspect.asset import read_camera, read_clip
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.inspect.render import Wanted, render_run
from ss4d.pipelines.values import scalars, write_value
from ss4d.pipelines.view.run_view import Frames, viewed_scene
from ss4d.stages.export.viewer_page import layers
from ss4d.stages.input_pictures import input_picture
from ss4d.stages.types import silent
from ss4d.storage.refs import ArtifactRef
from tests.helpers.browser import element, start_browser, wait
from tests.stages.export.clips import boxes

SIDE = 300  # pixels of the picture of the asset
NUM_FRAMES = 4


class Served:
    """The command, going on."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "ss4d.cli.entry", "view", *words, "--no-open"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + self.process.stderr.read()
        self.address, self.port = found[0], int(found[1])

    def ask(self, path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.fixture(scope="module")
def served(inflated_run: Path) -> Iterator[Served]:
    served = Served(str(inflated_run))
    yield served
    served.process.kill()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("profile"), "--window-size=900,800")
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, served: Served) -> webdriver.Chrome:
    """The page, with a picture of the asset of `SIDE` pixels."""
    driver.get(served.address)
    driver.execute_script(f"document.getElementById('splats').style.flex = '0 0 {SIDE}px'")
    wait(driver, lambda: driver.execute_script("return document.body.dataset.ready") == "true")
    return driver


def picture(browser: webdriver.Chrome, layer: str = "splats") -> np.ndarray:
    """What a layer shows, once what is asked for is read and drawn; its square middle."""
    asked = "return !state.due && !frames.reading && JSON.parse(byId('canvas').dataset.drawn).time === state.time"
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    wait(browser, lambda: bool(browser.execute_script(asked)))
    canvas = browser.find_element("css selector", f"#{layer} canvas")
    image = Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side))).astype(float) / 255


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    inner = slice(20, -20)  # without the ring that shows the focus, and the layer's name
    return float(-10 * np.log10(np.square(first - second)[inner, inner].mean()))


def rendered(run: Path, folder: Path, **wanted: object) -> list[np.ndarray]:
    """What `ss4d render` draws."""
    render_run(open_run(run), folder, Wanted(size=SIDE, least=NUM_FRAMES, **wanted), silent)  # type: ignore[arg-type]
    return [np.asarray(Image.open(path).convert("RGB")) / 255 for path in sorted(folder.iterdir())]


def test_it_shows_what_the_command_render_draws(browser: webdriver.Chrome, inflated_run: Path, tmp_path: Path) -> None:
    as_input = rendered(inflated_run, tmp_path / "input", cameras="input")
    front = rendered(inflated_run, tmp_path / "orbit", turns=0, pitch=0.0)
    canvas = element(browser, "canvas")
    for views, key in ((as_input, ""), (front, "0"), (as_input, "v")):  # the page opens as the input was seen
        canvas.send_keys(key)
        for frame, wanted in enumerate(views):
            assert element(browser, "frame").text == f"{frame + 1} / {NUM_FRAMES}"
            assert psnr(picture(browser), wanted) > 45
            canvas.send_keys(".")
    assert psnr(as_input[0], as_input[1]) < 30, "a frame too early or too late would show"
    assert browser.get_log("browser") == []


def test_the_input_is_in_step_beside_it(browser: webdriver.Chrome, inflated_run: Path) -> None:
    clip = read_clip(open_run(inflated_run))
    for frame in (0, 3, 1):
        element(browser, "timeline").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * frame)
        shown = picture(browser, "input")
        paper = Image.new("RGBA", clip.rgb.shape[1:3], "white")
        wanted = Image.alpha_composite(paper, input_picture(clip, frame)).convert("RGB").resize(shown.shape[1::-1])
        assert psnr(shown, np.asarray(wanted) / 255) > 28
    element(browser, "canvas").send_keys("i")
    assert not element(browser, "input").is_displayed()
    assert not browser.find_element("css selector", "[data-shows=input]").is_selected()


def test_the_page_loads_nothing_but_its_frames(browser: webdriver.Chrome, served: Served) -> None:
    picture(browser)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(({ name }) => name)")
    layers = [f"{served.address}frames/{layer}/{t}" for layer in ("input", "splats") for t in range(NUM_FRAMES)]
    assert sorted(loaded) == layers
    assert browser.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done('asked'), () => {});"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));"
    ) == "connect-src"  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/run.json",
        "/frames",
        "/frames/",
        "/frames/splats/4",
        "/frames/splats/-1",
        "/frames/splats/0.5",
        "/frames/mesh/0",
        "/../run.json",
        "/%2e%2e/run.json",
        "/frames/..%2f..%2frun.json/0",
        "/docs",
        "/openapi.json",
    ],
)
def test_there_is_nothing_else(served: Served, path: str) -> None:
    status, _, content = served.ask(path)
    assert 400 <= status < 500
    assert b"schema" not in content


def test_only_this_machine_may_ask_and_no_other_page_may_use_it(served: Served) -> None:
    for host in (f"127.0.0.1:{served.port}", f"localhost:{served.port}"):
        assert served.ask("/", host=host)[0] == 200
    for host in ("rebound.example", f"rebound.example:{served.port}", "127.0.0.1.rebound.example", "0.0.0.0"):
        refused, headers, _ = served.ask("/", host=host)
        assert (refused, headers["cross-origin-resource-policy"]) == (400, "same-origin")
    status, headers, page = served.ask("/frames/splats/0")
    assert (status, page[:2]) == (200, b"\x1f\x8b")
    assert {"access-control-allow-origin", "server"} & {name.lower() for name in headers} == set()
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert served.ask("/", method="POST")[0] == 405
    with socket.socket() as elsewhere, pytest.raises(OSError, match="refused"):
        elsewhere.connect(("127.0.0.2", served.port))


def test_what_cannot_be_done_is_told(served: Served, inflated_run: Path, tmp_path: Path) -> None:
    record = json.loads((inflated_run / "run.json").read_text())
    record["stages"]["decoding"]["key"] = "c" * 64
    record["store"] = str(inflated_run.parents[1] / "store")
    (tmp_path / "run.json").write_text(json.dumps(record))
    for words, told in (
        ([str(inflated_run), "--port", str(served.port)], f"port {served.port} cannot be used"),
        ([str(tmp_path)], "decoding"),
        ([str(tmp_path / "nothing")], "is not a run"),
    ):
        ended = CliRunner().invoke(app, ["view", *words, "--no-open"])
        assert (ended.exit_code, ended.output.count("\n")) == (1, 1), ended.output
        assert told in ended.output


def test_meshes_that_the_run_has_made_are_shown_beside_it_and_turned_as_it_is(
    inflated_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(inflated_run.parents[1], tmp_path / "out")
    run = tmp_path / "out" / "runs" / inflated_run.name
    content = json.loads((run / "run.json").read_text())
    content["stages"]["mesh"] = {**content["stages"]["decoding"], "key": "e" * 64}
    (run / "run.json").write_text(json.dumps(content))
    assert layers(viewed_scene(open_run(run))) == ("input", "splats"), "they are not stored yet"
    with open_run(run)["mesh"].store.create(ArtifactRef("mesh", "e" * 64)) as writer:
        write_value(writer, boxes(NUM_FRAMES))
        writer.commit({"values": scalars(boxes(NUM_FRAMES))})
    scene = viewed_scene(open_run(run))
    assert layers(scene) == ("input", "splats", "mesh")
    camera = read_camera(open_run(run))
    assert camera is not None
    assert scene.meshes is not None
    assert torch.allclose(scene.meshes.vertices, boxes(NUM_FRAMES).vertices @ camera.upright.T, atol=1e-6)
    assert len(gzip.decompress(Frames(scene).read("mesh", 1))) > 12 * 12


def test_the_last_frames_that_were_asked_for_are_kept(inflated_run: Path) -> None:
    scene = viewed_scene(open_run(inflated_run))
    one = len(Frames(scene).read("splats", 0))
    frames = Frames(scene, most=int(2.5 * one))
    first = frames.read("splats", 0)
    for t in (1, 0, 2, 0):
        frames.read("splats", t)
    assert frames.read("splats", 0) is first
    assert frames.read("splats", 3) is frames.read("splats", 3)


def test_ctrl_c_ends_it_and_the_page_says_so(browser: webdriver.Chrome, served: Served) -> None:
    picture(browser)
    served.process.send_signal(signal.SIGINT)
    _, told = served.process.communicate(timeout=30)
    assert (served.process.returncode, told) == (0, "")
    browser.execute_script("layers.forEach(({ renderer }) => renderer.unload(2)); show(2)")
    wait(browser, lambda: "start ss4d view again" in element(browser, "status").text)
