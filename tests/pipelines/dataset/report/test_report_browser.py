"""The report of a dataset in a real headless browser: ten thousand cards of which few exist, filters, order, keys."""

import io
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from ss4d.pipelines.dataset.catalog import DONE, FAILED, UNREADABLE
from ss4d.pipelines.dataset.report.sheet import Sheet
from ss4d.pipelines.dataset.report.sheet_page import html_sheet
from tests.helpers.browser import element, open_page, start_browser, wait
from tests.helpers.synthetic_sheet import FAILURES, synthetic_gallery, synthetic_sheet
from tests.pipelines.inspect.test_report import HOSTILE

NUM_CLIPS = 10_000
AT_MOST = 150  # cards that may exist at once: about four windows full
SIZE, FRAMES = 64, 4
COLORS = ("red", "green", "blue")


def strip(color: str) -> bytes:
    """A square that moves to the right over white."""
    image = Image.new("RGB", (SIZE * FRAMES, SIZE), "white")
    draw = ImageDraw.Draw(image)
    for k in range(FRAMES):
        left = k * SIZE + 4 + 10 * k
        draw.rectangle((left, 16, left + 20, 48), fill=color)
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Sheet:
    return synthetic_sheet(tmp_path_factory.mktemp("birds"), NUM_CLIPS)


@pytest.fixture(scope="module")
def page(sheet: Sheet) -> Path:
    """With its pictures in a folder beside it."""
    folder = sheet.dataset.folder
    gallery = synthetic_gallery(sheet, [strip(color) for color in COLORS], folder / "report-pictures")
    (folder / "report.html").write_text(html_sheet(sheet, gallery, folder))
    return folder / "report.html"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("profile"), "--window-size=1100,900")
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    """The browser with the page open from its file."""
    open_page(driver, page)
    return driver


def settle(browser: webdriver.Chrome) -> None:
    """Waits until what has to be drawn is drawn."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def shown(browser: webdriver.Chrome) -> list[int]:
    """The numbers of the clips whose cards exist, in their order."""
    settle(browser)
    cards = browser.execute_script(
        "return [...document.querySelectorAll('#grid .card')].map((card) => "
        "[Number(card.getAttribute('aria-posinset')), Number(card.dataset.number)])"
    )
    return [number for _, number in sorted(cards)]


def count(browser: webdriver.Chrome) -> int:
    """How many clips the page says that it shows."""
    return int(element(browser, "count").text.split()[0].replace(",", ""))


def chip(browser: webdriver.Chrome, box: str, name: str) -> WebElement:
    (found,) = [
        button for button in element(browser, box).find_elements(By.TAG_NAME, "button") if button.text.startswith(name)
    ]
    return found


def scroll(browser: webdriver.Chrome, where: str) -> None:
    browser.execute_script(f"scrollTo(0, {where})")
    settle(browser)


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: webdriver.Chrome) -> int:
    """The number of the clip whose card has the focus."""
    return int(browser.execute_script("return document.activeElement.closest('.card').dataset.number"))


def pixels(part: WebElement) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(part.screenshot_as_png)).convert("RGB")).astype(float) / 255


def test_it_opens_from_a_file_without_an_error(browser: webdriver.Chrome) -> None:
    assert count(browser) == NUM_CLIPS
    assert shown(browser)[:4] == [0, 1, 2, 3]
    for image in browser.find_elements(By.CSS_SELECTOR, "#grid img"):
        wait(browser, lambda image=image: bool(image.get_property("naturalWidth")))
    assert browser.get_log("browser") == []
    entries = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert not [entry for entry in entries if not entry.startswith("file:")]


def test_a_picture_shows_the_first_frame_until_it_is_to_move(browser: webdriver.Chrome) -> None:
    image = browser.find_element(By.CSS_SELECTOR, "#grid img")
    wait(browser, lambda: bool(image.get_property("naturalWidth")))
    still = pixels(image)
    red = (still[..., 0] > 0.8) & (still[..., 1] < 0.3)
    assert 0.1 < red.mean() < 0.3  # the square, and no part of other frames
    element(browser, "move").click()
    places: set[str] = set()

    def moved() -> bool:
        places.add(browser.execute_script("return arguments[0].style.objectPosition", image))
        return len(places) >= FRAMES

    wait(browser, moved)
    element(browser, "move").click()
    ActionChains(browser).move_to_element(element(browser, "count")).perform()
    wait(browser, lambda: np.array_equal(pixels(image), still))


def test_few_cards_exist_wherever_one_scrolls(browser: webdriver.Chrome) -> None:
    for where in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight", "1000"):
        scroll(browser, where)
        numbers = shown(browser)
        assert 10 < len(numbers) < AT_MOST
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert browser.execute_script("return document.querySelectorAll('*').length") < 20 * AT_MOST
    scroll(browser, "document.body.scrollHeight")
    assert shown(browser)[-1] == NUM_CLIPS - 1
    last = browser.find_element(By.CSS_SELECTOR, f"[data-number='{NUM_CLIPS - 1}']")
    assert last.text.startswith(f"clip{NUM_CLIPS - 1}")
    bottom = browser.execute_script("return arguments[0].getBoundingClientRect().bottom - innerHeight", last)
    assert bottom <= 0


@pytest.mark.parametrize("measure", ["seconds", "peak_memory", "gaussians", "frames"])
def test_sorting_by_a_measure(browser: webdriver.Chrome, sheet: Sheet, measure: str) -> None:
    values = [card.numbers()[measure] for card in sheet.cards]
    known = sorted((n for n in range(NUM_CLIPS) if values[n] is not None), key=lambda n: (values[n], n))
    unknown = [n for n in range(NUM_CLIPS) if values[n] is None]
    Select(element(browser, "sort")).select_by_value(measure)
    numbers = shown(browser)
    assert numbers == known[: len(numbers)]
    element(browser, "direction").click()
    falling = sorted(known, key=lambda n: (-values[n], n))  # type: ignore[operator]
    numbers = shown(browser)
    assert numbers == falling[: len(numbers)]
    scroll(browser, "document.body.scrollHeight")
    numbers = shown(browser)
    assert numbers == [*falling, *unknown][-len(numbers) :]


def test_sorting_by_name_knows_numbers(browser: webdriver.Chrome) -> None:
    Select(element(browser, "sort")).select_by_value("id")
    element(browser, "direction").click()
    assert shown(browser)[:3] == [9999, 9998, 9997]


def test_filters_leave_out_what_does_not_match(browser: webdriver.Chrome, sheet: Sheet) -> None:
    def expect(condition: Callable[[int], bool]) -> None:
        wanted = [n for n in range(NUM_CLIPS) if condition(n)]
        numbers = shown(browser)
        assert numbers == wanted[: len(numbers)]
        assert count(browser) == len(wanted)

    cards = sheet.cards
    chip(browser, "states", FAILED).click()
    assert chip(browser, "states", FAILED).get_attribute("aria-pressed") == "true"
    expect(lambda n: cards[n].state == FAILED)
    chip(browser, "states", UNREADABLE).click()
    expect(lambda n: cards[n].state in (FAILED, UNREADABLE))
    chip(browser, "causes", "killed").click()
    expect(lambda n: cards[n].failure is not None and cards[n].failure.cause == "killed")
    Select(element(browser, "tag")).select_by_value("fish")
    expect(lambda n: cards[n].failure in FAILURES[1:3] and n % 5 == 1)
    element(browser, "clear").click()
    assert count(browser) == NUM_CLIPS
    element(browser, "text").send_keys("WILD clip77")
    expect(lambda n: n % 3 != 0 and "clip77" in f"clip{n}")
    element(browser, "text").send_keys(" nothing at all")
    assert shown(browser) == []
    assert "No clip is like that." in element(browser, "grid").text
    element(browser, "clear").click()
    assert element(browser, "text").get_property("value") == ""
    assert count(browser) == NUM_CLIPS


def test_a_group_of_failures_shows_its_clips(browser: webdriver.Chrome, sheet: Sheet) -> None:
    table = browser.find_element(By.CSS_SELECTOR, ".failures")
    assert FAILURES[0].message in table.text
    scroll(browser, "document.body.scrollHeight")
    browser.find_elements(By.CSS_SELECTOR, "[data-group]")[1].click()
    wanted = [n for n in range(NUM_CLIPS) if sheet.cards[n].failure == FAILURES[1]]
    numbers = shown(browser)
    assert numbers == wanted[: len(numbers)]
    assert count(browser) == len(wanted) == len(sheet.groups[1].clips)
    assert "TimeLimit" in element(browser, "within").text
    element(browser, "within").click()
    assert count(browser) == NUM_CLIPS


def test_keys_go_from_card_to_card_and_open_one(browser: webdriver.Chrome, sheet: Sheet) -> None:
    columns = browser.execute_script("return size.columns")
    browser.execute_script("document.querySelector('#grid .card button').focus()")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert focused(browser) == columns
    press(browser, Keys.END)
    assert focused(browser) == NUM_CLIPS - 1
    press(browser, Keys.PAGE_UP)
    assert NUM_CLIPS - 1 > focused(browser) > NUM_CLIPS - 100
    press(browser, Keys.HOME, Keys.ENTER)
    dialog = element(browser, "details")
    assert dialog.is_displayed()
    assert element(browser, "details-title").text == "clip0"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert element(browser, "details-title").text == "clip2"
    press(browser, Keys.ESCAPE)
    assert not dialog.is_displayed()
    wait(browser, lambda: focused(browser) == 2)  # a moment after the browser has given it back to the first one


def test_only_one_card_is_a_stop_of_the_tab_key(browser: webdriver.Chrome) -> None:
    browser.execute_script("document.querySelector('#grid .card button').focus()")
    press(browser, *[Keys.ARROW_RIGHT] * 3)
    stops = browser.execute_script("return document.querySelectorAll('#grid button[tabindex=\"0\"]').length")
    assert (stops, focused(browser)) == (1, 3)


def test_details_tell_all_of_a_clip(browser: webdriver.Chrome, sheet: Sheet) -> None:
    number = next(n for n, card in enumerate(sheet.cards) if card.state == FAILED)
    card = sheet.cards[number]
    chip(browser, "states", FAILED).click()
    browser.find_element(By.CSS_SELECTOR, f"[data-number='{number}'] button").click()
    dialog = element(browser, "details")
    assert card.failure is not None
    for words in (card.row.id, card.row.source, card.failure.message, *(entry.key or "" for entry in card.entries)):
        assert words in dialog.text
    link = dialog.find_element(By.TAG_NAME, "a")
    assert link.get_attribute("href") == (sheet.dataset.logs / f"{card.row.id}.log").as_uri()
    commands = [shlex.split(code.text) for code in dialog.find_elements(By.CSS_SELECTOR, ".command code")]
    folder = str(sheet.dataset.folder)
    assert ["ss4d", "dataset", "retry", folder, "--set", "slat.sampler.steps=25", card.row.id] in commands
    assert ["ss4d", "run", card.row.source, "--name", card.row.id] in [words[:5] for words in commands]


def test_names_from_the_data_are_text(driver: webdriver.Chrome, tmp_path: Path) -> None:
    few = synthetic_sheet(tmp_path, 20)
    bad = HOSTILE + "<b>it's</b>"
    cards = [
        replace(
            card,
            row=replace(card.row, id=f"{bad} {k}", source=bad, tags=bad),
            failure=card.failure and replace(card.failure, message=bad, cause=bad, error=bad),
        )
        for k, card in enumerate(few.cards)
    ]
    groups = [replace(group, clips=[f"{bad} 9"], cause=bad, error=bad, stage=bad, message=bad) for group in few.groups]
    hostile = replace(few, cards=cards, groups=groups, where=bad)
    page = tmp_path / "report.html"
    page.write_text(html_sheet(hostile, synthetic_gallery(hostile, [strip("red")]), tmp_path))
    open_page(driver, page)
    assert driver.find_element(By.CSS_SELECTOR, "[data-number='3'] .name").text == f"{bad} 3"
    driver.find_element(By.CSS_SELECTOR, "[data-number='3'] button").click()
    dialog = element(driver, "details")
    assert dialog.text.count(bad) >= 4
    run = shlex.split(dialog.find_element(By.CSS_SELECTOR, ".command code").text)
    assert run[:5] == ["ss4d", "run", bad, "--name", f"{bad} 3"]
    press(driver, Keys.ESCAPE)
    driver.find_element(By.CSS_SELECTOR, "[data-group]").click()
    driver.find_element(By.CSS_SELECTOR, "#grid .card button").click()
    assert dialog.find_element(By.CSS_SELECTOR, ".message").text == bad
    assert dialog.find_elements(By.CSS_SELECTOR, "b, script, img[onerror]") == []
    assert driver.execute_script("return document.scripts.length") == 3
    assert driver.get_log("browser") == []


@pytest.mark.parametrize(
    "word", ["plain/a.mp4", "it's $HOME `x`", "a\x1b[201~\nrm x", "\r'\\033\u202e\x9b1", "-a\t\x07é\u2066'"]
)
def test_commands_hold_no_letter_that_a_terminal_obeys(browser: webdriver.Chrome, word: str) -> None:
    quoted = browser.execute_script("return quoted(arguments[0])", word)
    assert not set(quoted) & {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066"}
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert done.stdout.decode() == word


def test_pictures_in_the_page_itself_are_shown(driver: webdriver.Chrome, tmp_path: Path) -> None:
    few = synthetic_sheet(tmp_path, 8)
    page = tmp_path / "report.html"
    page.write_text(html_sheet(few, synthetic_gallery(few, [strip("blue")]), tmp_path))
    open_page(driver, page)
    image = driver.find_element(By.CSS_SELECTOR, "#grid img")
    wait(driver, lambda: bool(image.get_property("naturalWidth")))
    drawn = pixels(image)
    assert 0.1 < ((drawn[..., 2] > 0.8) & (drawn[..., 0] < 0.3)).mean() < 0.3
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.get_log("browser") == []


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: webdriver.Chrome) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        settle(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        assert browser.execute_script("return size.columns") == 2
        scroll(browser, "document.body.scrollHeight")
        assert shown(browser)[-1] == NUM_CLIPS - 1
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_done_clips_commands_make_a_run_of_it(browser: webdriver.Chrome, sheet: Sheet) -> None:
    assert sheet.cards[0].state == DONE
    browser.find_element(By.CSS_SELECTOR, "[data-number='0'] button").click()
    codes = browser.find_elements(By.CSS_SELECTOR, "#details .command code")
    commands = [shlex.split(code.text) for code in codes]
    folder = str(sheet.dataset.folder)
    assert commands[0][:7] == ["ss4d", "run", "/videos/bird/clip0.mp4", "--name", "clip0", "--out", folder]
    assert commands[1:] == [["ss4d", name, f"{folder}/runs/clip0"] for name in ("inspect", "report")]
