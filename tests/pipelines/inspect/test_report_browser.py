"""The page of a run in a real headless browser: it opens from a file, draws the asset, plays it and lets it be turned.

The asset is three colored balls that rise from frame to frame, so that a wrong side, a wrong order of depth or a still
picture shows.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.inspect.report import write_report
from ss4d.pipelines.values import write_value
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip
from ss4d.storage.refs import ArtifactRef
from tests.helpers.browser import element, open_page, start_browser, wait

NUM_FRAMES = 4


def balls() -> GaussianClip:
    """Red on the left, green on the right, blue half hidden behind red; all are made of needles and rise with time."""
    corner = torch.tensor([[-0.2, -0.1, -0.25], [0.2, -0.1, -0.25], [-0.15, 0.2, -0.2]])
    clouds = []
    for t in range(NUM_FRAMES):
        random = torch.Generator().manual_seed(7)
        jitter = torch.randn(3, 400, 3, generator=random) * torch.tensor([0.03, 0.05, 0.04])
        clouds.append((corner[:, None] + jitter + torch.tensor([0, 0, 0.07 * t])).reshape(-1, 3))
    n = 1200
    random = torch.Generator().manual_seed(8)
    turns = torch.nn.functional.normalize(torch.randn(n, 4, generator=random), dim=1)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.9]]).repeat_interleave(400, 0)
    return GaussianClip(
        means=torch.cat(clouds),
        scales=torch.tensor([0.03, 0.004, 0.0008]).expand(n * NUM_FRAMES, 3).contiguous(),
        quats=turns.repeat(NUM_FRAMES, 1),
        colors=colors.repeat(NUM_FRAMES, 1),
        opacities=torch.full((n * NUM_FRAMES,), 0.9),
        offsets=torch.arange(NUM_FRAMES + 1) * n,
    )


@pytest.fixture(scope="module")
def page(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose asset is `balls`."""
    out = tmp_path_factory.mktemp("page")
    shutil.copytree(finished_run.parents[1], out / "out")
    run = out / "out" / "runs" / finished_run.name
    content = json.loads((run / "run.json").read_text())
    content["stages"]["decoding"]["key"] = "b" * 64
    (run / "run.json").write_text(json.dumps(content))
    with open_run(run)["decoding"].store.create(ArtifactRef("decoding", "b" * 64)) as writer:
        write_value(writer, balls())
        writer.commit({"values": {}})
    write_report(open_run(run), out / "page.html", lambda part: None)
    return out / "page.html"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., webdriver.Chrome]:
    """Starts a browser of its own."""
    return lambda *flags: start_browser(tmp_path_factory.mktemp("profile"), *flags)


@pytest.fixture(scope="module")
def driver(start: Callable[..., webdriver.Chrome]) -> Iterator[webdriver.Chrome]:
    driver = start("--window-size=900,1100")
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    """The browser with the page open from its file and every frame loaded."""
    open_page(driver, page)
    return driver


def picture(browser: webdriver.Chrome) -> np.ndarray:
    """What the canvas shows, once nothing is left to draw."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    image = Image.open(io.BytesIO(element(browser, "canvas").screenshot_as_png)).convert("RGB")
    return np.asarray(image).astype(float) / 255


def go_to(browser: webdriver.Chrome, frame: int) -> None:
    """Moves the timeline as a person with a keyboard does."""
    timeline = element(browser, "timeline")
    timeline.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * frame)
    assert int(timeline.get_property("value")) == frame


def expected(frame: int, size: int, yaw: float = FRONT_YAW, pitch: float = 15.0) -> np.ndarray:
    rgb, _ = rasterize(balls().frame(frame), orbit_camera(yaw, pitch, size=size), background=(1.0, 1.0, 1.0))
    return rgb.clamp(0, 1).numpy()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).mean())


def test_it_opens_from_a_file_without_an_error_and_draws(browser: webdriver.Chrome) -> None:
    assert picture(browser).std() > 0.05
    assert element(browser, "status").text == ""
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("frame", [0, 3])
def test_it_draws_what_the_rasterizer_draws(browser: webdriver.Chrome, frame: int) -> None:
    go_to(browser, frame)
    shown = picture(browser)
    size = browser.execute_script("return document.getElementById('canvas').width")
    assert shown.shape[:2] == (size, size)
    truth = expected(frame, size)
    # Quantized to 16 bytes and blended in 8 bits: a tenth of a level off on average.
    assert difference(shown, truth) < 0.001
    assert difference(shown, truth[:, ::-1]) > 0.01
    assert np.abs(shown - truth).max() < 0.15


def test_the_timeline_moves_the_asset_and_the_pictures_beside_it(browser: webdriver.Chrome) -> None:
    panel = browser.find_element(By.CSS_SELECTOR, ".panel")
    seen = []
    for frame in range(NUM_FRAMES):
        go_to(browser, frame)
        assert element(browser, "frame").text == f"{frame + 1} / {NUM_FRAMES}"
        assert browser.find_element(By.CSS_SELECTOR, ".cell.now").get_attribute("data-frame") == str(frame)
        seen.append((picture(browser), panel.value_of_css_property("background-position")))
    for frame in range(NUM_FRAMES - 1):
        assert difference(seen[frame][0], seen[frame + 1][0]) > 0.01
    assert len({position for _, position in seen}) == NUM_FRAMES


def test_a_click_on_a_picture_goes_to_its_frame(browser: webdriver.Chrome) -> None:
    browser.find_elements(By.CSS_SELECTOR, ".cell")[2].click()
    assert element(browser, "timeline").get_property("value") == "2"


def test_play_runs_through_the_frames_until_it_is_stopped(browser: webdriver.Chrome) -> None:
    play, timeline = element(browser, "play"), element(browser, "timeline")
    play.click()
    assert play.text == "Pause"
    seen: set[str] = set()

    def passed() -> bool:
        seen.add(str(timeline.get_property("value")))
        return len(seen) == NUM_FRAMES

    wait(browser, passed)
    play.click()
    assert play.text == "Play"
    stopped = timeline.get_property("value")
    picture(browser)
    assert timeline.get_property("value") == stopped


def test_dragging_turns_it_as_the_rasterizer_turns_it(browser: webdriver.Chrome) -> None:
    before = picture(browser)
    canvas = element(browser, "canvas")
    ActionChains(browser, duration=50).drag_and_drop_by_offset(canvas, 100, 50).perform()
    after = picture(browser)
    assert difference(before, after) > 0.01
    assert difference(after, expected(0, len(after), FRONT_YAW + 40, 35)) < 0.001
    element(browser, "reset").click()
    assert difference(picture(browser), before) == 0


def test_keys_turn_zoom_step_and_play(browser: webdriver.Chrome) -> None:
    canvas, timeline = element(browser, "canvas"), element(browser, "timeline")
    start = picture(browser)
    canvas.send_keys(Keys.ARROW_LEFT * 4)
    assert difference(picture(browser), expected(0, len(start), FRONT_YAW - 20)) < 0.001
    canvas.send_keys("0+")
    assert (picture(browser) < 0.9).sum() > (start < 0.9).sum()
    canvas.send_keys("0..,")
    assert timeline.get_property("value") == "1"
    canvas.send_keys(" ")
    assert element(browser, "play").text == "Pause"


def test_the_wheel_zooms_within_limits(browser: webdriver.Chrome) -> None:
    start = picture(browser)
    scroll = ActionChains(browser, duration=0)
    for _ in range(3):
        scroll.scroll_from_origin(webdriver.common.actions.wheel_input.ScrollOrigin.from_element(
            element(browser, "canvas")
        ), 0, 5000)  # fmt: skip
    scroll.perform()
    far = picture(browser)
    assert 0 < (far < 0.9).sum() < (start < 0.9).sum()


def test_two_fingers_zoom_and_one_turns(browser: webdriver.Chrome) -> None:
    start = picture(browser)
    box = element(browser, "canvas").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *offsets: int) -> None:
        points = [{"x": x + offset, "y": y, "id": finger} for finger, offset in enumerate(offsets)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    for event in (("Start", -40, 40), ("Move", -60, 60), ("Move", -80, 80), ("End",)):
        touch(*event)
    near = picture(browser)
    assert (near < 0.9).sum() > 2 * (start < 0.9).sum()
    element(browser, "reset").click()
    for event in (("Start", 0), ("Move", 25), ("Move", 50), ("End",)):
        touch(*event)
    assert difference(picture(browser), expected(0, len(start), FRONT_YAW + 20)) < 0.001


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: webdriver.Chrome) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        # The page hears of its new size a little later.
        wait(browser, lambda: browser.execute_script("return document.documentElement.scrollWidth") == 360)
        wait(browser, lambda: picture(browser).std() > 0.05)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_sharp_on_every_screen_it_is_moved_to(browser: webdriver.Chrome) -> None:
    def move_to_screen(fineness: int) -> None:
        size = {"width": 400, "height": 740, "deviceScaleFactor": fineness, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wait(browser, lambda: browser.execute_script("return window.devicePixelRatio") == fineness)
        # This emulation tells pages of other sizes alone: what is drawn next has to find out.
        element(browser, "reset").click()
        wait(browser, lambda: browser.execute_script("return canvas.width / canvas.clientWidth") == fineness)

    try:
        for fineness in (1, 2, 1):
            move_to_screen(fineness)
        assert picture(browser).std() > 0.05
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_webgl_it_says_so_and_the_rest_works(start: Callable[..., webdriver.Chrome], page: Path) -> None:
    driver = start("--disable-3d-apis")
    try:
        open_page(driver, page)
        assert "WebGL2" in element(driver, "status").text
        go_to(driver, 2)
        assert driver.find_element(By.CSS_SELECTOR, ".cell.now").get_attribute("data-frame") == "2"
    finally:
        driver.quit()
