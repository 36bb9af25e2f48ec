"""How the command's process ends: everything written, every exit handler done, with the code of the command."""

import subprocess
import sys
from pathlib import Path

import pytest

ENDING = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import ss4d.cli.main
from ss4d.cli.entry import main

def app():
    pool = ThreadPoolExecutor(1)
    pool.submit(time.sleep, 0)  # its thread waits for more
    atexit.register(lambda: print("handler"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("command")
    sys.exit({code!r})

ss4d.cli.main.app = app
main()
"""


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (3, 3), ("a sentence", 1)])
def test_threads_and_handlers_are_waited_for(code: object, status: int) -> None:
    words = [sys.executable, "-c", ENDING.format(code=code)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout.split() == ["command", "thread", "handler"]
    assert ended.returncode == status
    assert ("a sentence" in ended.stderr) == (code == "a sentence")


def test_a_reader_that_goes_away_is_no_error() -> None:
    words = [sys.executable, "-m", "ss4d.cli.entry", "config", "tiny"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "ss4d.cli.entry", "config", "tiny"]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "disk is full" in ended.stderr
