"""A real headless browser for the tests of pages."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def start_browser(profile: Path, *flags: str) -> webdriver.Chrome:
    """A browser with a profile of its own; the test fails where there is none."""
    if BROWSER is None or DRIVER is None:
        pytest.fail("pages are tested in a real browser: install it with apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def open_page(driver: webdriver.Chrome, page: Path) -> None:
    """Opens a page from its file and waits until its script says that it is ready."""
    driver.get(page.as_uri())
    wait(driver, lambda: driver.execute_script("return document.body.dataset.ready") == "true")


def wait(driver: webdriver.Chrome, condition: Callable[[], bool]) -> None:
    """Waits until something holds; fails after two minutes."""
    WebDriverWait(driver, 120, poll_frequency=0.05).until(lambda _: condition())


def element(browser: webdriver.Chrome, name: str) -> WebElement:
    """The element of this id."""
    return browser.find_element(By.ID, name)
