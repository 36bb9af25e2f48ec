"""What long steps say where no bar can be drawn."""

import pytest

from ss4d.cli import console


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
