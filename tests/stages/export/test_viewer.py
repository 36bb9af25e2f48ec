"""The exported page in a real headless browser: opened from its file, it shows what our own rasterizer shows."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from ss4d.stages.export.base85 import ALPHABET, base85
from ss4d.stages.export.formats import write_formats
from ss4d.stages.input_camera import in_world
from ss4d.stages.meshing.draw import draw_mesh
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Camera, Clip, InputCamera, silent
from tests.helpers.browser import element, open_page, start_browser, wait
from tests.stages.export.clips import FPS, boxes, lopsided, scene_of

CLIP = lopsided(600, 500, 0, 700)
PITCH = 15.0
WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
CLOSE = 0.002  # what bytes cost on average; another frame or side costs ten times that


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_formats(["html"], scene_of(CLIP, meshed=False), folder, progress=silent)
    return folder / "viewer.html"


CAMERA = InputCamera(
    yaw=torch.tensor(25.0),
    pitch=torch.tensor(20.0),
    distance=torch.tensor(2.4),
    fov=torch.tensor(35.0),
    shift=torch.tensor([0.06, -0.1]),
    upright=torch.eye(3),
    overlap=torch.ones(CLIP.num_frames),
    spread=torch.zeros(2),
)
GRAYS = (250, 20, 120, 70)  # of the input's frames, which are even but for a transparent edge


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that knows the input and what filmed it."""
    shape = (CLIP.num_frames, 32, 32)
    alpha = torch.full(shape, 255, dtype=torch.uint8)
    alpha[:, :4] = 0
    gray = torch.tensor(GRAYS, dtype=torch.uint8)[:, None, None] * (alpha > 0)
    clip = Clip(
        rgb=gray[..., None].expand(*shape, 3).contiguous(),
        alpha=alpha,
        crop=torch.tensor([0, 0, 32, 32]),
        confidence=torch.ones(CLIP.num_frames),
        method="alpha",
        fps=FPS,
    )
    folder = tmp_path_factory.mktemp("filmed")
    write_formats(["html"], scene_of(CLIP, CAMERA, clip, meshed=False), folder, progress=silent)
    return folder / "viewer.html"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., webdriver.Chrome]:
    return lambda *flags: start_browser(tmp_path_factory.mktemp("profile"), *flags)


@pytest.fixture(scope="module")
def driver(
    start: Callable[..., webdriver.Chrome], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    driver = start("--window-size=640,640")
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    open_page(driver, page)
    return driver


def picture(browser: webdriver.Chrome, layer: str = "splats") -> np.ndarray:
    """What a layer shows, once what is asked for is read and drawn."""
    asked = "return state.time === JSON.parse(canvas.dataset.drawn).time && !state.due && !frames.reading"
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    wait(browser, lambda: bool(browser.execute_script(asked)))
    canvas = browser.find_element("css selector", f"#{layer} canvas")
    image = Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("RGB")
    return np.asarray(image).astype(float) / 255


def screenshot(browser: webdriver.Chrome) -> tuple[str, np.ndarray]:
    """The name and the content (h, w, 4) of the picture that the page saves."""
    name, url = browser.execute_async_script(
        "const done = arguments[0]; const click = HTMLAnchorElement.prototype.click;"
        "HTMLAnchorElement.prototype.click = async function () {"
        "  HTMLAnchorElement.prototype.click = click;"
        "  const blob = saved; const reader = new FileReader();"
        "  reader.onload = () => done([this.download, reader.result]); reader.readAsDataURL(blob);"
        "};"
        "const make = URL.createObjectURL; let saved = null;"
        "URL.createObjectURL = (blob) => { saved = blob; URL.createObjectURL = make; return make.call(URL, blob); };"
        "document.getElementById('screenshot').click();"
    )
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return name, np.asarray(image.convert("RGBA")).astype(float) / 255


def camera_of(shape: tuple[int, ...], yaw: float, pitch: float) -> Camera:
    """The page's camera: 40 degrees across the shorter side."""
    height, width = shape[:2]
    square = orbit_camera(yaw, pitch, size=min(height, width))
    return Camera(world_to_camera=square.world_to_camera, focal=square.focal, width=width, height=height)


def expected(
    shown: np.ndarray,
    frame: int,
    yaw: float = FRONT_YAW,
    pitch: float = PITCH,
    background: tuple[float, float, float] = WHITE,
) -> np.ndarray:
    rgb, _ = rasterize(CLIP.frame(frame), camera_of(shown.shape, yaw, pitch), background=background)
    return rgb.clamp(0, 1).numpy()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    inner = slice(6, -6)  # a ring around the picture says that it listens to keys
    return float(np.abs(first - second)[inner, inner].mean())


def go_to(browser: webdriver.Chrome, frame: int) -> None:
    element(browser, "timeline").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * frame)


def test_it_shows_every_frame_as_the_rasterizer_does(browser: webdriver.Chrome) -> None:
    for frame in range(CLIP.num_frames):
        go_to(browser, frame)
        shown = picture(browser)
        assert element(browser, "frame").text == f"{frame + 1} / {CLIP.num_frames}"
        assert difference(shown, expected(shown, frame)) < CLOSE
        assert difference(shown, expected(shown, frame)[:, ::-1]) > 5 * CLOSE or frame == 2
    assert element(browser, "status").text == ""
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_it_turns_zooms_and_moves_by_mouse_and_keys(browser: webdriver.Chrome) -> None:
    canvas = element(browser, "canvas")
    ActionChains(browser, duration=50).drag_and_drop_by_offset(canvas, 100, 50).perform()
    turned = picture(browser)
    assert difference(turned, expected(turned, 0, FRONT_YAW + 40, PITCH + 20)) < CLOSE
    canvas.send_keys("0" + Keys.ARROW_LEFT * 2)
    turned = picture(browser)
    assert difference(turned, expected(turned, 0, FRONT_YAW - 10)) < CLOSE
    canvas.send_keys("0")
    start = picture(browser)
    canvas.send_keys("+")
    assert (picture(browser) < 0.9).sum() > (start < 0.9).sum()
    canvas.send_keys("0")
    moves = ActionChains(browser, duration=50).key_down(Keys.SHIFT).drag_and_drop_by_offset(canvas, 60, 0)
    moves.key_up(Keys.SHIFT).perform()
    moved = picture(browser)
    assert difference(moved[:, 70:-10], start[:, 10:-70]) < 5 * CLOSE < difference(moved, start)


def test_keys_work_wherever_the_focus_is(browser: webdriver.Chrome) -> None:
    page = browser.find_element("tag name", "body")
    page.send_keys("b" + Keys.ARROW_RIGHT * 2)
    shown = picture(browser)
    assert difference(shown, expected(shown, 0, FRONT_YAW + 10, background=(128 / 255,) * 3)) < CLOSE
    page.send_keys("..,")
    assert element(browser, "frame").text == f"2 / {CLIP.num_frames}"
    page.send_keys(" ")
    assert element(browser, "play").text == "Pause"
    page.send_keys(",")
    assert element(browser, "play").text == "Play"
    element(browser, "reset").click()
    start = picture(browser)
    element(browser, "reset").send_keys(Keys.ARROW_RIGHT * 2)
    assert difference(picture(browser), start) > CLOSE, "a button has no use for arrows"
    element(browser, "play").send_keys(" ")
    assert element(browser, "play").text == "Pause", "but for the space bar, once"
    page.send_keys(",")
    page.send_keys("f")
    wait(browser, lambda: browser.execute_script("return document.fullscreenElement !== null"))
    page.send_keys("f")
    wait(browser, lambda: browser.execute_script("return document.fullscreenElement === null"))
    Select(element(browser, "background")).select_by_visible_text("black")
    element(browser, "background").send_keys("b")  # a list has keys of its own
    assert element(browser, "background").get_property("value") == "black"


def test_the_input_is_beside_it_in_step_and_seen_from_the_same_side(driver: webdriver.Chrome, filmed: Path) -> None:
    open_page(driver, filmed)  # which begins as the input was seen
    for frame in (0, 1, 3):
        go_to(driver, frame)
        shown = picture(driver)
        height, width = shown.shape[:2]
        square = in_world(CAMERA, min(height, width))
        camera = Camera(world_to_camera=square.world_to_camera, focal=square.focal, width=width, height=height)
        wanted, _ = rasterize(CLIP.frame(frame), camera, background=WHITE)
        assert difference(shown, wanted.clamp(0, 1).numpy()) < CLOSE
        beside = picture(driver, "input")
        middle = tuple(side // 2 for side in beside.shape[:2])
        assert np.abs(beside[middle] * 255 - GRAYS[frame]).max() < 3
        assert beside[5, 5].min() == 1, "the page's background"
    element(driver, "fade").click()
    driver.execute_script("show(0.5)")
    beside = picture(driver, "input")
    middle = tuple(side // 2 for side in beside.shape[:2])
    assert np.abs(beside[middle] * 255 - (GRAYS[0] + GRAYS[1]) / 2).max() < 3
    wide = picture(driver).shape[1]
    driver.find_element("css selector", "[data-shows=input]").click()
    picture(driver)
    assert driver.execute_script("return canvas.width") > 1.3 * wide
    element(driver, "reset").click()
    picture(driver)
    start = json.loads(driver.execute_script("return canvas.dataset.drawn"))
    for back in (lambda: driver.find_element("tag name", "body").send_keys("v"), element(driver, "seen").click):
        element(driver, "reset").click()
        back()
        picture(driver)
        turned = json.loads(driver.execute_script("return canvas.dataset.drawn"))
        assert (start["shift"], np.round(turned["shift"], 6).tolist()) == ([0, 0], [0.06, -0.1])


def test_a_mesh_is_drawn_as_our_own_rasterizer_of_triangles_draws_it(driver: webdriver.Chrome, tmp_path: Path) -> None:
    mesh = boxes(CLIP.num_frames)
    write_formats(["html"], scene_of(CLIP), tmp_path, progress=silent)
    open_page(driver, tmp_path / "viewer.html")
    canvas = driver.find_element("css selector", "#mesh canvas")
    canvas.send_keys(Keys.ARROW_LEFT * 6 + Keys.ARROW_UP)
    for frame in range(CLIP.num_frames):
        go_to(driver, frame)
        shown, beside = picture(driver, "mesh"), picture(driver)
        camera = camera_of(shown.shape, FRONT_YAW - 30, PITCH + 5)
        wanted = draw_mesh(mesh.frame(frame), camera, background=WHITE)[0].numpy()
        below = slice(24, None)  # the layer's name
        assert difference(shown[below], wanted[below]) < 2 * CLOSE, "edges are smoothed with other samples"
        assert difference(shown[below], wanted[below, ::-1]) > 5 * CLOSE or frame == 2
        assert difference(beside[below], expected(beside, frame, FRONT_YAW - 30, PITCH + 5)[below]) < CLOSE, "alike"
    canvas.send_keys("g")
    assert not element(driver, "canvas").is_displayed()
    canvas.send_keys("m")
    assert canvas.is_displayed(), "it is all that is shown"
    assert driver.get_log("browser") == []


def test_a_screenshot_has_the_layers_beside_each_other(driver: webdriver.Chrome, filmed: Path) -> None:
    open_page(driver, filmed)
    beside, shown = picture(driver, "input"), picture(driver)
    name, saved = screenshot(driver)
    assert name == "asset-0001.png"
    assert saved.shape[:2] == (shown.shape[0], beside.shape[1] + shown.shape[1])
    assert difference(saved[:, beside.shape[1] :, :3], shown) < CLOSE
    assert difference(saved[40:, : beside.shape[1], :3], beside[40:]) < CLOSE


def test_it_plays_at_its_speed_and_stops(browser: webdriver.Chrome) -> None:
    Select(element(browser, "speed")).select_by_value("2")
    play = element(browser, "play")
    play.click()
    assert play.text == "Pause"
    seen: set[str] = set()

    def passed() -> bool:
        seen.add(element(browser, "frame").text)
        return len(seen) == CLIP.num_frames

    wait(browser, passed)
    play.click()
    stopped = browser.execute_script("return state.time")
    picture(browser)
    assert browser.execute_script("return [state.time, state.speed]") == [stopped, 2]


def test_frames_fade_into_each_other(browser: webdriver.Chrome) -> None:
    element(browser, "fade").click()
    browser.execute_script("show(0.25)")
    shown = picture(browser)
    mixed = 0.75 * expected(shown, 0) + 0.25 * expected(shown, 1)
    assert difference(shown, mixed) < CLOSE < difference(shown, expected(shown, 0))


def test_the_background_changes_and_a_screenshot_has_it(browser: webdriver.Chrome) -> None:
    Select(element(browser, "background")).select_by_visible_text("black")
    shown = picture(browser)
    assert difference(shown, expected(shown, 0, background=BLACK)) < CLOSE
    Select(element(browser, "background")).select_by_visible_text("transparent")
    picture(browser)
    name, saved = screenshot(browser)
    assert name == "asset-0001.png"
    assert saved.shape == (*shown.shape[:2], 4)
    assert saved[0, 0].tolist() == [0, 0, 0, 0]
    assert saved[..., 3].max() == 1


def test_of_a_clip_that_is_too_large_only_what_comes_next_is_kept(driver: webdriver.Chrome, tmp_path: Path) -> None:
    counts = [20 + t for t in range(7)]
    write_formats(["html"], scene_of(lopsided(*counts), meshed=False), tmp_path, progress=silent)
    told = f'"gaussians": {counts}'
    text = (tmp_path / "viewer.html").read_text()
    assert told in text
    (tmp_path / "large.html").write_text(text.replace(told, f'"gaussians": {[count + 10**7 for count in counts]}'))
    open_page(driver, tmp_path / "large.html")
    for frame, kept in ((0, [0, 1, 2, 3]), (2, [2, 3, 4, 5]), (5, [0, 1, 5, 6])):
        go_to(driver, frame)
        picture(driver)
        assert sorted(driver.execute_script("return Object.keys(layers[0].renderer.frames).map(Number)")) == kept


def test_bytes_of_every_length_come_back_from_their_text(browser: webdriver.Chrome) -> None:
    assert len(set(ALPHABET)) == 85
    draw = np.random.default_rng(0)
    for length in (*range(10), 1000):
        for data in (draw.bytes(length), b"\0" * length, b"\xff" * length):
            read = "return [...base85Bytes(arguments[0], data.alphabet)]"
            assert bytes(browser.execute_script(read, base85(data))) == data


def test_it_works_on_a_phone(browser: webdriver.Chrome) -> None:
    size = {"width": 360, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wait(browser, lambda: browser.execute_script("return window.devicePixelRatio * innerWidth") == 720)
        element(browser, "reset").click()  # this emulation does not always tell pages of a finer screen
        wait(browser, lambda: browser.execute_script("return canvas.width") == 720)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        assert browser.execute_script("return document.documentElement.scrollHeight <= innerHeight")
        box = element(browser, "canvas").rect
        assert box["height"] > 350
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def touch(kind: str, *offsets: tuple[int, int]) -> None:
            points = [{"x": x + right, "y": y + down, "id": k} for k, (right, down) in enumerate(offsets)]
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

        for event in (("Start", (0, 0)), ("Move", (25, 0)), ("Move", (50, 0)), ("End",)):
            touch(*event)
        drawn = json.loads(browser.execute_script("return canvas.dataset.drawn"))
        wait(browser, lambda: json.loads(browser.execute_script("return canvas.dataset.drawn"))["yaw"] == 200)
        shown = picture(browser)
        assert difference(shown, expected(shown, 0, FRONT_YAW + 20)) < CLOSE, drawn
        for event in (("Start", (-40, 0), (40, 0)), ("Move", (-80, 0), (80, 0)), ("End",)):
            touch(*event)
        wait(browser, lambda: json.loads(browser.execute_script("return canvas.dataset.drawn"))["radius"] < 1.5)
        element(browser, "play").click()
        assert element(browser, "play").text == "Pause"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_webgl_it_says_so(start: Callable[..., webdriver.Chrome], page: Path) -> None:
    driver = start("--disable-3d-apis")
    try:
        open_page(driver, page)
        assert "WebGL2" in element(driver, "status").text
    finally:
        driver.quit()


def test_a_damaged_frame_is_told(driver: webdriver.Chrome, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    start = text.index('data-layer="splats">') + len('data-layer="splats">')
    (tmp_path / "damaged.html").write_text(f"{text[:start]}!!!!{text[start + 4 :]}")
    driver.get((tmp_path / "damaged.html").as_uri())
    wait(driver, lambda: "cannot be read" in element(driver, "status").text)
