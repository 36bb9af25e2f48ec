"""`ss4d serve` as users have it: real browsers, real clips, and processes that are killed in the middle.

The tests follow each other, since a server and two browsers take long to start.
"""

import io
import os
import re
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from ss4d.stages.video_io import write_video
from tests.conftest import draw_frames
from tests.helpers.browser import element, start_browser, wait
from tests.helpers.unfitted import OFF
from tests.helpers.waiting import wait_until

QUICK = (*OFF, "decoding.method=inflation", "camera.method=front", "segmentation.size=64", "export.size=64")
BLUE = np.array([30, 60, 200])


def film(path: Path, shift: int) -> Path:
    """Eight frames of a disc that moves over blue, and elsewhere with another `shift`."""
    frames = np.roll(draw_frames(8, 96), shift, axis=2)
    alpha = frames[..., 3:] / 255
    write_video(path, torch.from_numpy((frames[..., :3] * alpha + BLUE * (1 - alpha)).astype(np.uint8)), 12)
    return path


class Serving:
    """The command, going on."""

    def __init__(self, out: Path, port: int = 0) -> None:
        sets = [word for value in (*QUICK, "export.frames=8") for word in ("--set", value)]
        limits = ["--most-seconds", "2", "--port", str(port), "--out", str(out), "--no-open"]
        words = [sys.executable, "-m", "ss4d.cli.entry", "serve", *limits, *sets]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line := self.process.stderr.readline())
        assert found, line + self.process.stderr.read()
        self.address, self.port = found[0], int(found[1])

    def children(self) -> list[psutil.Process]:
        """Its processes, the worker last."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        spawned = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return sorted(spawned, key=lambda child: child.create_time())

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=60) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / "out"


@pytest.fixture(scope="module")
def serving(out: Path) -> Iterator[Serving]:
    serving = Serving(out)
    yield serving
    serving.process.kill()


Users = list[webdriver.Chrome]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """Two browsers that know nothing of each other."""
    drivers = [start_browser(tmp_path_factory.mktemp("profile"), "--window-size=900,1000") for _ in range(2)]
    yield drivers
    for driver in drivers:
        driver.quit()


def cards(user: webdriver.Chrome, state: str = "") -> list[str]:
    """The titles of the clips that a user sees, of those in a state."""
    chosen = f".clip[data-state={state}] h2" if state else ".clip h2"
    script = "return [...document.querySelectorAll(arguments[0])].map((title) => title.textContent)"
    return list(user.execute_script(script, chosen))


def shown(user: webdriver.Chrome, css: str) -> Callable[[], bool]:
    return lambda: any(found.is_displayed() for found in user.find_elements(By.CSS_SELECTOR, css))


def hand_in(user: webdriver.Chrome, path: Path) -> None:
    element(user, "file").send_keys(str(path))


def test_a_wrong_file_is_told_and_not_kept(serving: Serving, users: Users, tmp_path: Path, out: Path) -> None:
    user = users[0]
    user.get(serving.address)
    (tmp_path / "notes.mp4").write_text("This is not a film.\n" * 50)
    hand_in(user, tmp_path / "notes.mp4")
    wait(user, lambda: "notes.mp4 is not a video" in element(user, "status").text)
    write_video(tmp_path / "long.mp4", torch.zeros(30, 32, 32, 3, dtype=torch.uint8), 10)
    hand_in(user, tmp_path / "long.mp4")
    wait(user, lambda: "long.mp4 lasts 3 seconds, more than the 2" in element(user, "status").text)
    assert cards(user) == []
    assert {entry["message"].rpartition(" status of ")[2][:3] for entry in user.get_log("browser")} == {"422"}
    assert [path.name for path in (out / "submissions").iterdir()] == [".server"]


def test_two_users_at_once_get_their_assets_though_a_worker_is_killed(
    serving: Serving, users: Users, tmp_path: Path
) -> None:
    for number, user in enumerate(users):
        user.get(serving.address)
        hand_in(user, film(tmp_path / f"disc{number}.mp4", shift=10 * number))
        wait(user, shown(user, ".pick img"))
        user.find_element(By.CSS_SELECTOR, ".pick img").click()
        assert user.find_element(By.CSS_SELECTOR, ".pick i").is_displayed(), "the place that was clicked on"
        user.find_element(By.CSS_SELECTOR, "button.main").click()
    wait(users[0], lambda: cards(users[0], "running") == ["disc0.mp4"])
    wait(users[1], lambda: cards(users[1], "waiting") == ["disc1.mp4"])  # one worker, one at a time
    assert "It is next." in users[1].find_element(By.CSS_SELECTOR, ".clip").text
    wait(users[0], shown(users[0], ".stages li"))
    assert [row.text.split()[0] for row in users[0].find_elements(By.CSS_SELECTOR, ".stages li")][:2] == [
        "segmentation",
        "camera",
    ]
    serving.children()[-1].kill()
    for number, user in enumerate(users):
        wait(user, lambda: cards(user, "done") == [f"disc{number}.mp4"])  # noqa: B023  (waits at once)
        assert len(cards(user)) == 1, "each sees what is theirs"


def test_the_result_turns_in_the_page_and_is_downloaded(serving: Serving, users: Users) -> None:
    user = users[0]
    user.switch_to.frame(user.find_element(By.CSS_SELECTOR, "iframe"))
    wait(user, lambda: user.execute_script("return document.body.dataset.ready") == "true")
    before = canvas(user)
    assert (np.abs(before - [200, 80, 40]).max(-1) < 40).mean() > 0.1, "the disc in its color"
    element(user, "canvas").send_keys("." * 4)
    assert element(user, "frame").text == "5 / 8"
    wait(user, lambda: bool(np.abs(canvas(user) - before).mean() > 1))
    user.switch_to.default_content()
    assert user.get_log("browser") == []
    links = {link.text: link.get_attribute("href") for link in user.find_elements(By.CSS_SELECTOR, ".files a")}
    assert {"ply", "spz", "4d.zip", "html", "mp4"} <= links.keys()
    assert "glb of meshes" not in links, "there are none"
    paths = {name: link.removeprefix(serving.address) for name, link in links.items()}
    with zipfile.ZipFile(io.BytesIO(serving.get(paths["ply"]))) as archive:
        assert len(archive.namelist()) == 8
        assert archive.read("frames/frame0001.ply").startswith(b"ply")
    with zipfile.ZipFile(io.BytesIO(serving.get(paths["4d.zip"]))) as archive:
        assert "scene.json" in archive.namelist()
    page = serving.get(paths["html"])
    assert b"<title>disc0.mp4</title>" in page
    assert paths["html"].split("/")[1].encode() not in page, "who is handed it must not learn the id"
    assert serving.get(paths["mp4"])[4:8] == b"ftyp"


def canvas(user: webdriver.Chrome) -> np.ndarray:
    shot = user.find_element(By.ID, "canvas").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def test_a_run_that_fails_is_told_in_a_sentence(serving: Serving, users: Users, tmp_path: Path) -> None:
    user = users[0]
    write_video(tmp_path / "plain.mp4", torch.full((4, 64, 64, 3), 128, dtype=torch.uint8), 12)
    hand_in(user, tmp_path / "plain.mp4")
    wait(user, shown(user, "button.main"))
    user.find_element(By.CSS_SELECTOR, "button.main").click()
    wait(user, lambda: cards(user, "failed") == ["plain.mp4"])
    told = user.find_element(By.CSS_SELECTOR, ".problem").text
    assert "foreground" in told
    assert "submissions" not in told, "no path of the server"
    assert user.find_element(By.CSS_SELECTOR, "button.main").text == "Try again"


def test_after_a_kill_of_the_server_the_next_one_goes_on(
    serving: Serving, users: Users, tmp_path: Path, out: Path
) -> None:
    user = users[1]
    hand_in(user, film(tmp_path / "third.mp4", shift=30))
    wait(user, shown(user, "button.main"))
    user.find_element(By.CSS_SELECTOR, "button.main").click()
    wait(user, lambda: cards(user, "running") == ["third.mp4"])
    children = serving.children()
    os.kill(serving.process.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(child.is_running() for child in children), 20), "nothing is left running"
    again = Serving(out, serving.port)
    try:
        wait(user, lambda: cards(user, "done") == ["third.mp4", "disc1.mp4"])
        user.find_element(By.CSS_SELECTOR, ".clip button").click()
        wait(user, lambda: cards(user) == ["disc1.mp4"])
        assert len(list((out / "runs").glob("[0-9a-f]*"))) == 3
        again.process.send_signal(signal.SIGINT)
        _, told = again.process.communicate(timeout=30)
        ending = "Ending. What was handed in is kept, and the same command goes on where it stopped.\n"
        assert (again.process.returncode, told) == (0, ending)
    finally:
        again.process.kill()
