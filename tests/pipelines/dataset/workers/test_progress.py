"""How a run of a dataset tells how far it is."""

import io

import pytest
from rich.console import Console

from ss4d.cli.dataset_view import duration, line, picture
from ss4d.pipelines.dataset.workers.progress import ClipView, Pace, Snapshot, StageView, Tally, WorkerView


def test_pace_is_that_of_the_last_times() -> None:
    pace = Pace(0.0)
    assert pace.per_second(5.0) == 0
    for second in range(1, 1001):
        pace.count(second)
    assert pace.per_second(1000.0) == pytest.approx(1.0)
    assert pace.per_second(1199.0) == pytest.approx(0.5)  # it has not happened for a while


def test_a_tally_tells_when_a_run_will_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ss4d.pipelines.dataset.workers.progress.time.monotonic", lambda: clock[0])
    clock = [0.0]
    tally = Tally(10, ["slat"])
    assert tally.snapshot("running", [], 0).remaining_seconds is None
    for cause in (None, None, "input", None):
        clock[0] += 2.0
        tally.artifact("slat", 1.5)
        tally.clip(cause)  # type: ignore[arg-type]
    snapshot = tally.snapshot("running", [], 0)
    assert (snapshot.done, snapshot.failed, snapshot.num_failed) == (3, {"input": 1}, 1)
    assert (snapshot.per_second, snapshot.remaining_seconds) == (0.5, 12.0)
    assert (snapshot.stages["slat"].done, snapshot.stages["slat"].seconds) == (4, 1.5)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (11520, "3 h 12 min"), (90000, "1 d 1 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_a_line_and_a_picture_say() -> None:
    clip = ClipView(id="fox[1]", stage="slat", seconds=3.2)
    workers = [
        WorkerView(pid=11, ready=True, memory=3 << 30, clips=[clip]),
        WorkerView(pid=12, ready=False, memory=1 << 20, clips=[]),
    ]
    snapshot = Snapshot(
        state="running",
        clips=1000,
        done=412,
        failed={"input": 3},
        running=1,
        seconds=100.0,
        per_second=1.8,
        remaining_seconds=325.0,
        stages={
            "slat": StageView(done=5, per_second=1.9, seconds=0.5),
            "export": StageView(done=0, per_second=0, seconds=0),
        },
        workers=workers,
        memory=0,
    )
    assert line(snapshot) == ("412 of 1000 clips done, 3 failed, 1 running, 1.80 clips/s, 5 min 25 s left, slat 1.90/s")
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(picture(snapshot))
    shown = capture.get()
    for words in ("412/1000 clips", "fox[1]", "loads the networks", "3.2 GB"):
        assert words in shown
