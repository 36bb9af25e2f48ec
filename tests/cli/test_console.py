"""What long steps say where no bar can be drawn."""

import logging
from pathlib import Path

import pytest
import typer

from ss4d.cli import console
from ss4d.cli.failures import explained
from ss4d.cli.tables import print_table
from ss4d.stages.errors import InputError


def test_a_long_step_says_now_and_then_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.bar("clips") as progress:
        for done in range(1, 41):
            now = 100.0 + done
            progress(done, 40)
    assert capsys.readouterr().err.splitlines() == [
        "clips: 5 of 40 done after 5 s",
        "clips: 35 of 40 done after 35 s",
    ]


def test_a_short_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar("clips") as progress:
        progress(1, 1)
    assert capsys.readouterr().err == ""


HOSTILE = "\x1b]0;title\x07\x1b[2Jred\r\x9b31m\u202egnp.exe"


def test_no_control_character_reaches_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(HOSTILE)
    console.output(HOSTILE)
    print_table(["name"], [[HOSTILE]])
    with explained(debug=False, interrupted=""):
        logging.getLogger("ss4d").warning("%s", HOSTILE)
    with pytest.raises(typer.Exit), explained(debug=True, interrupted=""):
        raise InputError(HOSTILE)
    printed = capsys.readouterr()
    for text, times in ((printed.out, 2), (printed.err, 4)):
        assert text.count("\u241b[2Jred") >= times
        assert text.count("\ufffd31m\ufffdgnp") >= times
        assert not set(text) & set("\x1b\x07\r\x9b\u202e")


def test_a_path_to_copy_is_no_option() -> None:
    assert console.to_copy("-rf") == "./-rf"
    assert console.to_copy(Path("a b")) == "'a b'"
