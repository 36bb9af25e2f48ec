"""Runs that fit: which camera, what is stored under which key, and that a run without is as it was before."""

from pathlib import Path

import pytest
import torch

from ss4d.pipelines.config import load_config
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.plan import Recipes
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.stages.types import FittedGaussians
from tests.conftest import FAST, Silent, record
from tests.helpers.unfitted import OFF

INFLATED = ("decoding.method=inflation", "decoding.resolution=24", *(word for word in FAST if word[:2] in ("se", "ex")))
FITTED = (
    "camera.method=auto",
    "structure_fit.method=masks",
    "appearance_fit.method=gaussians",
    "appearance_fit.steps=2",
    "appearance_fit.size=24",
)


def run(clip: Path, out: Path, *overrides: str) -> OpenedRun:
    options = RunOptions(
        source=clip, out=out, overrides=(*INFLATED, *overrides), device="cpu", engine="direct", name="disc"
    )
    return open_run(run_clip(options, Silent()))


def recipes(*overrides: str) -> dict[str, dict[str, object]]:
    weights = dict.fromkeys(
        (
            "image_cond_model",
            "sparse_structure_flow_model",
            "sparse_structure_decoder",
            "slat_flow_model",
            "slat_decoder_gs",
        ),
        "0" * 64,
    )
    return Recipes(load_config("tiny", overrides), "1" * 64, 42, weights).of_all()


def test_a_run_that_fits(clip: Path, tmp_path: Path) -> None:
    plain = run(clip, tmp_path, *OFF)
    assert list(plain) == ["segmentation", "decoding", "export"]
    fitted = run(clip, tmp_path, *FITTED)
    assert list(fitted) == ["segmentation", "camera", "decoding", "appearance_fit", "export"]
    assert fitted["camera"].record.recipe.implementation == "front"
    assert fitted["decoding"].ref == plain["decoding"].ref
    value = fitted["appearance_fit"].value()
    assert isinstance(value, FittedGaussians)
    assert len(value.loss) == 2
    assert list(fitted["export"].record.recipe.inputs) == ["appearance_fit", "segmentation", "camera"]
    before = plain["export"].ref
    assert run(clip, tmp_path, *OFF)["export"].ref == before
    assert {entry["state"] for entry in record(tmp_path, "disc")["stages"].values()} == {"reused"}


def test_a_goal_that_is_left_out_is_told(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another method, or the goal decoding"):
        run(clip, tmp_path, *OFF, "goals=[appearance_fit]")
    with pytest.raises(ConfigError, match=r"appearance_fit.method=gaussians needs the result of camera"):
        run(clip, tmp_path, *FITTED, "camera.method=none")
    run(clip, tmp_path, *FITTED, "goals=[appearance_fit]")
    assert list(run(clip, tmp_path, *OFF)) == ["segmentation", "decoding", "export"], "an earlier goal, now left out"


def test_fitting_leaves_what_comes_before_it_alone() -> None:
    without, fitted = recipes(*OFF), recipes(*FITTED)
    assert without.keys() == fitted.keys() - {"camera", "structure_fit", "camera_fit", "appearance_fit"}
    for stage in ("segmentation", "conditioning", "sparse_structure"):
        assert without[stage] == fitted[stage]
    assert set(without["slat"]["inputs"]) == {"conditioning", "sparse_structure"}  # type: ignore[call-overload]
    assert set(fitted["slat"]["inputs"]) == {"conditioning", "structure_fit"}  # type: ignore[call-overload]
    assert set(without["export"]["inputs"]) == {"decoding", "segmentation"}  # type: ignore[call-overload]


def test_a_camera_that_is_not_fitted_is_taken_as_it_was_found() -> None:
    fitted, plain = recipes(*FITTED), recipes(*FITTED, "camera_fit.method=none")
    assert plain.keys() == fitted.keys() - {"camera_fit"}
    for stage in ("appearance_fit", "export"):
        assert "camera_fit" in fitted[stage]["inputs"]  # type: ignore[operator]
        assert "camera" in plain[stage]["inputs"]  # type: ignore[operator]
    assert "camera_fit" not in recipes("camera.method=none", "structure_fit.method=none", "appearance_fit.method=none")


def test_what_was_told_of_the_camera_goes_to_the_one_that_inflation_calls_for() -> None:
    with pytest.raises(ConfigError, match=r"camera\.yaw"):
        load_config("tiny", ["camera.method=auto", "camera.yaw=10", "decoding.method=inflation"])
    config = load_config("tiny", ["camera.method=auto", "camera.yaw=10"])
    assert config.section("camera").model_dump()["yaw"] == 10


def test_loss_and_frames_are_stored(clip: Path, tmp_path: Path) -> None:
    opened = run(clip, tmp_path, *FITTED)
    assert opened["appearance_fit"]["loss"].shape == (2,)
    assert torch.from_numpy(opened["camera"]["upright"][:]).equal(torch.eye(3))
