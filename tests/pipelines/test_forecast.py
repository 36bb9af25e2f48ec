"""What a run is told to cost before it begins."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines import forecast as forecasts
from ss4d.pipelines.forecast import BESIDE, StageForecast, forecast, known_voxels, shortage
from ss4d.pipelines.inspect.rerun import Changes, options_of_run
from ss4d.pipelines.plan import Wish
from ss4d.pipelines.prepare import Preparation, prepare
from ss4d.stages.roles import STRUCTURE_FLOW
from ss4d.stages.weights import describe, frame_tokens


def again(finished_run: Path, *overrides: str, wish: Wish | None = None) -> Preparation:
    """The finished run, as it would run again."""
    return prepare(
        options_of_run(finished_run, Changes(overrides=overrides, wish=wish or Wish(from_stage="segmentation")))
    )


def most(stages: Sequence[StageForecast]) -> float:
    return max(stage.peak for stage in stages)


def test_stages_with_networks_that_would_run(finished_run: Path) -> None:
    everything = forecast(again(finished_run), 4)
    assert [stage.stage for stage in everything] == ["conditioning", "sparse_structure", "slat", "decoding"]
    assert all(stage.peak > 0 and stage.flop[torch.float32] > 0 for stage in everything)
    assert [s.stage for s in forecast(again(finished_run, wish=Wish(force=("slat",))), 4)] == ["slat"]
    assert all(stage.seconds("cpu") > 0 for stage in everything)


def test_a_guided_step_counts_twice(finished_run: Path) -> None:
    wish = Wish(only="slat", force=("slat",))
    plain, guided = (
        forecast(again(finished_run, "slat.sampler.steps=8", f"slat.sampler.cfg_strength={strength}", wish=wish), 4)[0]
        for strength in (0.0, 3.0)
    )
    assert plain.flop[torch.float32] < guided.flop[torch.float32] <= 2 * plain.flop[torch.float32]


def test_voxels_are_those_that_are_stored(finished_run: Path) -> None:
    run = again(finished_run, wish=Wish(force=("slat",)))
    step = next(step for step in run.steps if step.stage == "sparse_structure")
    assert known_voxels(run, 4) == len(run.store.open(step.ref).read("coords")) / 4
    assert known_voxels(again(finished_run), 4) is None


def test_windows_bound_the_memory(finished_run: Path) -> None:
    wish = Wish(force=("slat",))
    whole, windows = (again(finished_run, "memory=low", *sets, wish=wish) for sets in ((), ("slat.window=8",)))
    assert most(forecast(windows, 64)) < most(forecast(whole, 64)) / 2


def test_what_is_kept_from_step_to_step_is_counted(finished_run: Path) -> None:
    wish = Wish(force=("sparse_structure",))
    keeping, lean = (again(finished_run, *sets, wish=wish) for sets in ((), ("memory=low",)))
    flow = describe(lean.model.folder.description(STRUCTURE_FLOW)).args
    tokens = 4 * frame_tokens(lean.model.folder)
    kept = flow.num_blocks * tokens * 2 * flow.model_channels * 4
    assert forecast(keeping, 4)[0].peak == forecast(lean, 4)[0].peak + kept
    assert forecast(keeping, 4)[0].flop == forecast(lean, 4)[0].flop


def test_a_run_that_will_not_fit_is_told_how_many_frames_would(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = again(finished_run)
    memory = BESIDE + most(forecast(run, 20))
    monkeypatch.setattr(forecasts, "device_memory", lambda _: memory)
    assert shortage(run, 20) is None
    told = shortage(run, 32)
    assert told is not None
    assert "for 32 frames" in told
    assert "--set input.frames=20 would fit" in told
    monkeypatch.setattr(forecasts, "device_memory", lambda _: BESIDE)
    assert "no number of frames would fit" in str(shortage(run, 32))


def test_a_run_that_would_fit_with_less_memory_is_told_so(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = Wish(only="slat", force=("slat",))
    run, lean = again(finished_run, wish=wish), again(finished_run, "memory=low", wish=wish)
    memory = BESIDE + most(forecast(lean, 20))
    assert most(forecast(run, 20)) > most(forecast(lean, 20))
    monkeypatch.setattr(forecasts, "device_memory", lambda _: memory)
    assert str(shortage(run, 20)).endswith("--memory low would fit")
    assert str(shortage(run, 32)).endswith("--memory low with --set input.frames=20 would fit")
    assert shortage(lean, 20) is None


def test_a_card_that_is_not_here_has_memory_and_arithmetic_but_no_time(finished_run: Path) -> None:
    """Nor is anything tried on it."""
    words = ["plan", str(finished_run), "--from", "conditioning", "--device"]
    here, elsewhere = (CliRunner().invoke(app, [*words, device]) for device in ("cpu", "cuda"))
    assert elsewhere.exit_code == 0, elsewhere.output
    assert "Estimated for 4 frames on cuda" in elsewhere.output
    assert "not known without the card" in elsewhere.output
    stages = [stage.stage for stage in forecast(again(finished_run, wish=Wish(from_stage="conditioning")), 4)]
    rows = [[line.split()[:4] for line in told.stdout.splitlines() if line.split()[:1] in [[s] for s in stages]]
            for told in (here, elsewhere)]  # fmt: skip
    assert [row for row in rows[1] if "GiB" in row] == [row for row in rows[0] if "GiB" in row]
    assert len(rows[1]) >= len(stages)


def test_a_plan_for_a_device_states_memory_arithmetic_and_time(finished_run: Path) -> None:
    words = ["plan", str(finished_run), "--from", "conditioning", "--device", "cpu"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "Estimated for 4 frames on cpu, with as many voxels as most objects have" in " ".join(told.output.split())
    rows = [line.split() for line in told.output.splitlines() if "GiB" in line and "TFLOP" not in line]
    assert [row[0] for row in rows[:-1]] == ["conditioning", "sparse_structure", "slat", "decoding"]
    told = CliRunner().invoke(app, [*words[:2], "--device", "cpu"])
    assert "Estimated" not in told.output  # nothing is left to compute
