"""How the command's process ends: everything written, every exit handler done, with the code of the command."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ss4d.cli.home import provide_home
from tests.helpers.places import ROOT

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
    assert ended.stderr == "ss4d: the standard output cannot be written: No space left on device\n"


CLOSED = """
import os, sys
for descriptor in {closed!r}:
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-m", "ss4d.cli.entry", "config", "tiny"])
"""


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_closed_streams_are_no_error(closed: tuple[int, ...]) -> None:
    words = [sys.executable, "-c", CLOSED.format(closed=closed)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_messages_that_nobody_can_be_shown_end_no_work() -> None:
    code = "from ss4d.cli import streams; streams.open_streams(); from ss4d.cli.console import say; say('x'); print(1)"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"1\n")


HANGUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.{before})
from ss4d.cli.entry import main
import ss4d.cli.main
from ss4d.cli.failures import explained

def app():
    with explained(False, "nothing is lost"):
        os.kill(os.getpid(), signal.SIGHUP)
        print("goes on")

ss4d.cli.main.app = app
main()
"""


@pytest.mark.parametrize(
    ("before", "status", "said"), [("SIG_DFL", 1, "terminated; nothing is lost"), ("SIG_IGN", 0, "")]
)
def test_a_terminal_that_goes_away_ends_a_command_unless_nohup_began_it(before: str, status: int, said: str) -> None:
    words = [sys.executable, "-c", HANGUP.format(before=before)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said in ended.stderr
    assert ended.stdout == ("" if status else "goes on\n")
    assert bool(ended.returncode) == bool(status)


def test_every_command_says_after_ctrl_c_what_has_become_of_its_work() -> None:
    """Until a command has imported what it needs, Ctrl-C ends it with "before anything began"."""
    deaf = []
    for path in sorted((ROOT / "cli").glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                words = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
                names = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
                if "explained" in words and not ("opened_for" in words or "default_int_handler" in names):
                    deaf.append(f"{path.name}: {function.name}")
    assert deaf == []


def test_without_a_home_caches_have_a_folder_that_only_the_user_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    provide_home()
    home = Path(os.environ["HOME"])
    assert home.parent == tmp_path
    assert home.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("HOME")
    provide_home()
    assert Path(os.environ["HOME"]) == home
    monkeypatch.delenv("HOME")
    home.chmod(0o755)  # as one that somebody else made, to look into
    provide_home()
    assert Path(os.environ["HOME"]) != home
