"""Real training processes, killed at random instants: the losses stay the same, and no process is left behind."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from ss4d.stages.data.clip import ClipSpec, make_clip
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import STRUCTURE_FLOW
from ss4d.stages.training.clips import FreshClips, draw
from ss4d.stages.training.log import read_log
from ss4d.stages.training.recipe import SMOKE, StepPlan, TrainingRecipe
from ss4d.stages.training.run import run_training
from ss4d.stages.training.tiny import file_name
from ss4d.stages.training.training import Training
from tests.helpers.forks import FORKS

STEP, STEPS = "structure", 30
SPEC = ClipSpec(seed=0, num_frames=2, input_size=16, num_views=1, view_size=8, resolution=8)


def recipe() -> TrainingRecipe:
    """`structure` for many quick steps, a checkpoint after each third; what comes before it hardly trains."""
    plans = {
        name: StepPlan(pool=plan.pool, settings=dataclasses.replace(plan.settings, steps=1, save_every=9))
        for name, plan in SMOKE.plans.items()
    }
    settings = dataclasses.replace(SMOKE.plans[STEP].settings, steps=STEPS, save_every=3, picture_every=12)
    return dataclasses.replace(SMOKE, plans={**plans, STEP: StepPlan(pool=plans[STEP].pool, settings=settings)})


def run(out: Path, steps: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    for step in steps:
        training = Training(recipe=recipe(), out=out, device=torch.device("cpu"), ops=TORCH_OPS, only=step)
        run_training(training, lambda line: None)


def start(out: Path, *steps: str) -> multiprocessing.Process:
    process = FORKS.Process(target=run, args=(out, steps))
    process.start()
    return process


def test_killed_at_random_instants_the_losses_are_the_same(tmp_path: Path) -> None:
    before = start(tmp_path / "whole", "images", "occupancy", "appearance", "statistics")
    before.join()
    assert before.exitcode == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    whole = start(tmp_path / "whole", STEP)
    chance, kills = random.Random(4), 0
    for _ in range(6):
        process = start(tmp_path / "parts", STEP)
        process.join(chance.uniform(0.3, 3))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    process = start(tmp_path / "parts", STEP)
    process.join()
    whole.join()
    assert whole.exitcode == process.exitcode == 0
    assert kills

    def losses(folder: str) -> list[tuple[float, ...]]:
        rows = read_log(tmp_path / folder / "training" / STEP)
        return [(row["step"], row["loss"], row["gradient"]) for row in rows]

    assert losses("parts") == losses("whole")
    assert [step for step, *_ in losses("whole")] == list(range(1, STEPS + 1))
    results = [tmp_path / folder / "training" / STEP / "result" for folder in ("parts", "whole")]
    weights, others = ((result / f"{file_name(STRUCTURE_FLOW)}.safetensors").read_bytes() for result in results)
    assert weights == others

    written = results[0].stat().st_mtime_ns
    again = start(tmp_path / "parts", STEP)
    again.join()
    assert again.exitcode == 0
    assert results[0].stat().st_mtime_ns == written  # a finished step is skipped


def make_endlessly(pipe) -> None:
    clips = FreshClips(SPEC, 3, 1)
    pipe.send([clip.seed for clip in clips.batch(0, 2)])
    pipe.send([p.pid for p in multiprocessing.active_children()])
    while True:
        time.sleep(1)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_fresh_clips_depend_on_seed_and_step_and_their_makers_end_with_the_run() -> None:
    here, there = multiprocessing.Pipe()
    process = FORKS.Process(target=make_endlessly, args=(there,))
    process.start()
    assert here.poll(120)
    assert here.recv() == [draw(3, "clip", 0, i, below=2**31) for i in range(2)]
    workers = here.recv()
    assert workers
    assert all(map(alive, workers))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_fresh_clips_are_those_made_here() -> None:
    clips = FreshClips(SPEC, 5, 1)
    try:
        later = clips.batch(6, 1)[0]
        seed = draw(5, "clip", 6, 0, below=2**31)
        expected = make_clip(dataclasses.replace(SPEC, seed=seed))
        assert later.seed == seed
        assert torch.equal(later.frames, expected.frames)
        assert torch.equal(later.coords, expected.coords)
    finally:
        clips.close()
