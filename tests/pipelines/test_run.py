"""Whole runs of the command: what it makes, what it reuses and why, and how it ends when it is stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import av
import psutil
import pytest

from ss4d.stages.training.tiny import SLAT_SAMPLER
from tests.conftest import FAST, draw_frames, record, save_frames
from tests.helpers.waiting import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
ORDER = ["segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export"]


def states(out: Path, name: str = "disc") -> dict[str, str]:
    return {stage: entry["state"] for stage, entry in record(out, name)["stages"].items()}


def descendants_named(words: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if words in " ".join(p.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def done(ss4d: Run, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished run."""
    out = tmp_path_factory.mktemp("done")
    finished = ss4d(clip, out)
    assert finished.returncode == 0, finished.stderr
    return out


def test_the_results_and_the_record(done: Path, clip: Path) -> None:
    folder = done / "runs" / "disc"
    assert sorted(p.name for p in (folder / "frames").iterdir()) == [f"frame{t:04d}.ply" for t in range(1, 5)]
    assert (folder / "cameras.json").is_file()
    with av.open(str(folder / "turntable.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert len(list(container.decode(video=0))) == 8  # six asked for, two whole loops made
    made = record(done, "disc")
    assert made["state"] == "complete"
    assert made["seed"] == 42
    assert made["input"]["path"] == str(clip)
    assert len(made["input"]["sha256"]) == 64
    left_to_the_model = {**asdict(SLAT_SAMPLER), "cfg_interval": list(SLAT_SAMPLER.cfg_interval)}
    assert made["config"]["slat"]["sampler"] == {**left_to_the_model, "steps": 2, "solver": "euler"}
    assert "torch" in made["versions"]
    assert set(states(done).values()) == {"computed"}
    for stage in ORDER:
        assert made["stages"][stage]["peak_memory_mib"] > 50
        assert made["stages"][stage]["seconds"] >= 0
    assert set(made["results"]) == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"run.json"}


def test_again_computes_nothing(ss4d: Run, done: Path, clip: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / "store").rglob("*")}
    again = ss4d(clip, done, engine="prefect")  # and with nothing to do starts no server either
    assert again.returncode == 0, again.stderr
    assert set(states(done).values()) == {"reused"}
    assert {p: p.stat().st_mtime_ns for p in (done / "store").rglob("*")} == before
    assert again.stderr.count("stored, made from the same input and parameters") == len(ORDER)
    assert not (done / ".prefect").exists()


def test_from_a_stage_on(ss4d: Run, done: Path, clip: Path) -> None:
    again = ss4d(clip, done, "--from", "decoding")
    assert again.returncode == 0, again.stderr
    assert states(done) == {stage: "computed" if ORDER.index(stage) >= 4 else "reused" for stage in ORDER}
    assert again.stderr.count("asked for by --from decoding") == 2


def test_a_changed_parameter_runs_what_depends_on_it(ss4d: Run, done: Path, clip: Path) -> None:
    again = ss4d(clip, done, "--set", "slat.sampler.steps=3")
    assert again.returncode == 0, again.stderr
    assert states(done) == {stage: "computed" if ORDER.index(stage) >= 3 else "reused" for stage in ORDER}
    assert "slat.sampler.steps changed from 2 to 3" in again.stderr
    assert "its input slat changed" in again.stderr
    back = ss4d(clip, done)
    assert set(states(done).values()) == {"reused"}, back.stderr


def test_another_seed_keeps_what_has_no_randomness(ss4d: Run, done: Path, clip: Path) -> None:
    assert ss4d(clip, done, "--seed", "7", "--name", "seven").returncode == 0
    assert states(done, "seven") == {stage: "computed" if ORDER.index(stage) >= 2 else "reused" for stage in ORDER}


def test_an_unknown_stage(ss4d: Run, done: Path, clip: Path) -> None:
    wrong = ss4d(clip, done, "--from", "slats")
    assert wrong.returncode == 1
    assert "there is no stage 'slats'" in wrong.stderr


def test_prefect_makes_the_same_artifacts_and_leaves_no_server(
    ss4d: Run, done: Path, clip: Path, tmp_path: Path
) -> None:
    finished = ss4d(clip, tmp_path, engine="prefect")
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    for name in record(done, "disc")["results"]:
        assert (tmp_path / "runs/disc" / name).read_bytes() == (done / "runs/disc" / name).read_bytes()
    keys = [{s: e["key"] for s, e in record(out, "disc")["stages"].items()} for out in (done, tmp_path)]
    assert keys[0] == keys[1]
    assert descendants_named(str(tmp_path)) == []
    assert not list((tmp_path / ".prefect").glob("server-*"))


def test_the_private_server_minds_no_settings_of_the_users(
    command: Callable[..., list[str]], clip: Path, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    settings = {"http_proxy": nowhere, "PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_API_KEY": "c"}
    words = command(clip, tmp_path, "--engine", "prefect")
    finished = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **settings}, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("seconds", [0.15, 0.4, 1.0, 2.0])
def test_ctrl_c_while_it_starts(command: Callable[..., list[str]], clip: Path, tmp_path: Path, seconds: float) -> None:
    words = command(clip, tmp_path, "--engine", "prefect")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert wait_until(lambda: not descendants_named(str(tmp_path)), 60)


def test_a_model_path_in_a_file_counts_from_the_file(ss4d: Run, clip: Path, tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"model: {os.path.relpath(model_folder, tmp_path)}\n")
    words = [
        sys.executable,
        "-m",
        "ss4d.cli.entry",
        "run",
        str(clip),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "direct",
    ]
    sets = [word for value in FAST for word in ("--set", value)]
    finished = subprocess.run(
        [*words, "--config", str(tmp_path / "mine.yaml"), *sets], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("num_frames", [1, 3])
def test_any_number_of_frames(ss4d: Run, tmp_path: Path, num_frames: int) -> None:
    source = save_frames(tmp_path / "few", draw_frames(num_frames))
    finished = ss4d(source, tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "out/runs/few/frames").glob("*.ply"))) == num_frames


def test_fewer_frames_leave_no_old_results(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    assert ss4d(clip, tmp_path).returncode == 0
    assert ss4d(clip, tmp_path, "--set", "input.count=2").returncode == 0
    assert len(list((tmp_path / "runs/disc/frames").iterdir())) == 2


@pytest.mark.timeout(900)  # what it waits for takes seconds, unless the machine is busy
@pytest.mark.parametrize("engine", ["prefect", "direct"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle(
    command: Callable[..., list[str]], ss4d: Run, done: Path, clip: Path, tmp_path: Path, engine: str, sent: int
) -> None:
    """However a run ends, its server ends with it, finished stages are kept, and the next run completes it."""
    slow = command(clip, tmp_path, "--engine", engine, "--set", "slat.sampler.steps=10000")
    process = subprocess.Popen(slow, stderr=subprocess.PIPE, text=True, start_new_session=True)
    latents = tmp_path / "store" / "sparse_structure"
    assert wait_until(lambda: list(latents.glob("*/*.zarr")) or process.poll() is not None, 240)
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.5)
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    assert "Traceback" not in errors
    assert wait_until(lambda: not descendants_named(str(tmp_path)), 60)
    assert not list(tmp_path.glob(".prefect/server-*"))
    if sent != signal.SIGKILL:
        assert record(tmp_path, "disc")["error"] == {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[sent]
    if sent == signal.SIGINT:
        assert "interrupted; finished stages are kept" in errors
        assert not list((tmp_path / "store/.staging").iterdir())
    again = ss4d(clip, tmp_path)
    assert again.returncode == 0, again.stderr
    assert not list((tmp_path / "store/.staging").iterdir())
    assert [states(tmp_path)[stage] for stage in ORDER[:3]] == ["reused"] * 3
    for name in record(done, "disc")["results"]:
        assert (tmp_path / "runs/disc" / name).read_bytes() == (done / "runs/disc" / name).read_bytes()


@pytest.mark.timeout(900)
def test_killed_at_a_random_instant_with_its_engine(
    command: Callable[..., list[str]],
    ss4d: Run,
    done: Path,
    clip: Path,
    tmp_path: Path,
    times: int,
    chance: random.Random,
) -> None:
    """With Prefect; `tests/pipelines/test_run_crash.py` does it hundreds of times without."""
    for number in range(times):
        out = tmp_path / str(number)
        process = subprocess.Popen(
            command(clip, out, "--engine", "prefect"), stderr=subprocess.DEVNULL, start_new_session=True
        )
        finished_stages = chance.randint(0, len(ORDER) - 1)
        made = out / "store"
        assert wait_until(lambda n=finished_stages, p=made: len(list(p.glob("*/*/*.zarr"))) >= n, 240)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.wait()
        assert wait_until(lambda p=out: not descendants_named(str(p)), 60)
        before = sum(1 for _ in made.glob("*/*/*.zarr"))
        again = ss4d(clip, out)
        assert again.returncode == 0, again.stderr
        assert list(states(out).values()).count("reused") == before
        for name in record(done, "disc")["results"]:
            assert (out / "runs/disc" / name).read_bytes() == (done / "runs/disc" / name).read_bytes()


def test_the_record_of_a_failed_run(ss4d: Run, tmp_path: Path) -> None:
    source = save_frames(tmp_path / "clear", draw_frames(2) * 0)
    failed = ss4d(source, tmp_path / "out")
    assert failed.returncode == 1
    made = json.loads((tmp_path / "out/runs/clear/run.json").read_text())
    assert made["state"] == "failed"
    assert "transparent" in made["error"]
