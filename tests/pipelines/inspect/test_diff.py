"""How far apart two results are, on values with known answers, and what two runs are told to differ in."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.inspect.diff import Change, RunDiff, changes, compare_runs
from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from ss4d.stages.evaluation.distances import (
    IncomparableError,
    clip_distance,
    distances,
    gaussians_distance,
    latents_distance,
    relative_distance,
    tokens_distance,
    voxels_distance,
)
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import Clip, GaussianClip, StructuredLatents, Tokens, Voxels
from tests.conftest import FAST, Silent

ORDER = ["segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export"]


def clip_of(alpha: torch.Tensor, crop: tuple[int, int, int, int]) -> Clip:
    return Clip(
        rgb=torch.zeros(*alpha.shape, 3, dtype=torch.uint8),
        alpha=alpha,
        crop=torch.tensor(crop),
        confidence=torch.ones(len(alpha)),
        method="alpha",
        fps=24.0,
    )


def masks(*columns: int) -> torch.Tensor:
    """A frame of 8 x 8 for each number, opaque up to that column."""
    alpha = torch.zeros(len(columns), 8, 8, dtype=torch.uint8)
    for t, column in enumerate(columns):
        alpha[t, :, :column] = 255
    return alpha


def test_masks() -> None:
    a, b = clip_of(masks(4, 2, 0), (0, 0, 8, 8)), clip_of(masks(2, 2, 0), (0, 0, 8, 8))
    assert clip_distance(a, b) == {"mask_iou": pytest.approx((0.5 + 1 + 1) / 3), "mask_iou_least": 0.5}


def test_masks_are_compared_where_they_lie_in_the_source() -> None:
    """The same pixels of the source, cropped and resized otherwise, are the same mask."""
    whole = clip_of(masks(4), (0, 0, 16, 16))  # the left 8 of 16 pixels
    left = clip_of(masks(8), (0, 0, 8, 16))
    assert clip_distance(whole, left)["mask_iou"] == 1
    moved = clip_of(masks(4), (8, 0, 24, 16))  # 8 pixels further right
    assert clip_distance(whole, moved)["mask_iou"] == 0
    beyond = clip_of(masks(8), (-4, 0, 4, 16))  # half of it outside the frame
    assert clip_distance(whole, beyond)["mask_iou"] == pytest.approx(4 / 12)


def test_relative_distance() -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert relative_distance(x, x) == 0
    assert relative_distance(x, -x) == pytest.approx(2)
    assert relative_distance(x, 0 * x) == pytest.approx(2**0.5)
    assert relative_distance(0 * x, 0 * x) == 0
    tokens = Tokens(feats=x[None])
    assert tokens_distance(tokens, Tokens(feats=1.1 * x[None]))["token_distance"] == pytest.approx(
        0.1 / ((1 + 1.21) / 2) ** 0.5
    )


def voxels(*cells: tuple[int, int, int, int], num_frames: int = 2, resolution: int = 4) -> Voxels:
    coords = torch.tensor([(0, *cell) for cell in sorted(cells)], dtype=torch.int32).reshape(-1, 5)
    return Voxels(coords=coords, latent=torch.zeros(num_frames, 1, 1, 1, 1), resolution=resolution)


def test_voxels() -> None:
    a = voxels((0, 0, 0, 0), (0, 1, 2, 3), (1, 3, 3, 3))
    b = voxels((0, 1, 2, 3), (0, 2, 2, 3), (1, 3, 3, 3))
    assert voxels_distance(a, b) == {
        "voxel_iou": pytest.approx((1 / 3 + 1) / 2),
        "voxel_iou_least": pytest.approx(1 / 3),
        "voxels_a": 3,
        "voxels_b": 3,
    }


def latents(cells: Voxels, feats: torch.Tensor) -> StructuredLatents:
    return StructuredLatents(coords=cells.coords, feats=feats, num_frames=2, resolution=4)


def test_latents_are_compared_on_shared_voxels() -> None:
    a = latents(voxels((0, 0, 0, 0), (0, 1, 2, 3), (1, 3, 3, 3)), torch.tensor([[9.0], [1.0], [2.0]]))
    b = latents(voxels((0, 1, 2, 3), (1, 0, 0, 0), (1, 3, 3, 3)), torch.tensor([[1.0], [9.0], [-2.0]]))
    expected = ((16 / 2) / (5 / 2)) ** 0.5
    assert latents_distance(a, b) == {"voxels_shared": 0.5, "latent_distance": pytest.approx(expected)}
    apart = latents(voxels((0, 3, 3, 3)), torch.ones(1, 1))
    assert latents_distance(a, apart) == {"voxels_shared": 0}
    empty = latents(voxels(), torch.ones(0, 1))
    assert latents_distance(empty, empty) == {"voxels_shared": 1}


def blobs(color: float, num_frames: int = 2) -> GaussianClip:
    """One large Gaussian in each frame."""
    n = num_frames
    return GaussianClip(
        means=torch.zeros(n, 3),
        scales=torch.full((n, 3), 0.2),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        colors=torch.full((n, 3), color),
        opacities=torch.full((n,), 0.9),
        offsets=torch.arange(n + 1),
    )


def test_gaussians() -> None:
    same = gaussians_distance(blobs(0.5), blobs(0.5), rasterize)
    assert (same["psnr"], same["gaussians_a"], same["gaussians_b"]) == (pytest.approx(100), 2, 2)
    near, far = (gaussians_distance(blobs(0.5), blobs(color), rasterize)["psnr"] for color in (0.55, 0.9))
    assert far < near < 100


def test_what_cannot_be_compared() -> None:
    with pytest.raises(IncomparableError, match="2 frames against 3"):
        distances(blobs(0.5), blobs(0.5, num_frames=3), rasterize)
    with pytest.raises(IncomparableError, match="4 cells along an axis against 8"):
        distances(voxels((0, 0, 0, 0)), voxels((0, 0, 0, 0), resolution=8), rasterize)
    with pytest.raises(IncomparableError, match="Voxels and GaussianClip"):
        distances(voxels((0, 0, 0, 0)), blobs(0.5), rasterize)


def test_changes() -> None:
    a, b = {"x": 1, "s": {"y": 2, "z": None}}, {"x": 1, "s": {"y": 3}, "w": 0}
    assert changes(a, b) == [Change("s.y", 2, 3), Change("w", None, 0)]


# Whole runs


@pytest.fixture
def out(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run.parent.parent, tmp_path / "out")
    return tmp_path / "out"


def again(out: Path, clip: Path, model_folder: Path, *sets: str, **options: Any) -> Path:
    given = {"source": clip, "out": out, "device": "cpu", "engine": "direct", "name": "other"}
    run = RunOptions(overrides=(f"model={model_folder}", *FAST, *sets), **{**given, **options})
    return run_clip(run, Silent())


def verdicts(found: RunDiff) -> list[str]:
    return [stage.verdict for stage in found.stages]


def test_a_run_and_itself(finished_run: Path) -> None:
    found = compare_runs(open_run(finished_run), open_run(finished_run))
    assert found == replace(found, input=[], seed=[], parameters=[], weights=[], versions=[])
    assert verdicts(found) == ["identical"] * 6


def test_two_variants(out: Path, clip: Path, model_folder: Path) -> None:
    other = again(out, clip, model_folder, "slat.sampler.steps=3", "export.size=32", seed=7)
    found = compare_runs(open_run(out / "runs" / "disc"), open_run(other))
    assert found.seed == [Change("seed", 42, 7)]
    assert found.parameters == [Change("slat.sampler.steps", 2, 3), Change("export.size", 64, 32)]
    assert [*found.input, *found.weights, *found.versions] == []
    assert verdicts(found) == ["identical"] * 2 + ["differs"] * 4
    measured = {stage.stage: stage.measures for stage in found.stages}
    assert 0 < measured["sparse_structure"]["voxel_iou"] < 1
    assert measured["decoding"]["psnr"] < 100
    assert measured["export"]["files_a"] == 6


def test_the_same_content_of_another_recipe(out: Path, clip: Path, model_folder: Path) -> None:
    other = again(out, clip, model_folder, "segmentation.method=alpha")
    found = compare_runs(open_run(out / "runs" / "disc"), open_run(other))
    assert verdicts(found) == ["identical"] * 6
    assert {stage.why for stage in found.stages} == {"different recipes, the same content"}


def test_runs_of_other_stages_and_missing_artifacts(out: Path, clip: Path, model_folder: Path) -> None:
    other = again(out, clip, model_folder, "decoding.method=inflation", "decoding.resolution=32")
    shutil.rmtree(out / "store" / "export")
    found = compare_runs(open_run(out / "runs" / "disc"), open_run(other))
    told = {stage.stage: (stage.verdict, stage.why) for stage in found.stages}
    assert told["segmentation"] == ("identical", "one artifact")
    assert told["slat"] == ("differs", "only A has this stage")
    assert told["decoding"] == ("differs", "different recipes")
    assert told["export"] == ("unknown", "not stored in A and B")


def test_one_recipe_in_two_stores(out: Path, finished_run: Path) -> None:
    found = compare_runs(open_run(finished_run), open_run(out / "runs" / "disc"))
    assert {stage.why for stage in found.stages} == {"the same recipe, the same content"}
    for chunk in (out / "store" / "slat").rglob("c.*"):
        chunk.write_bytes(bytes(len(chunk.read_bytes())))
    found = compare_runs(open_run(finished_run), open_run(out / "runs" / "disc"))
    slat = next(stage for stage in found.stages if stage.stage == "slat")
    assert slat.verdict == "unknown"
    assert "damaged" in slat.why


def test_versions_packages_and_weights(out: Path, finished_run: Path) -> None:
    path = out / "runs" / "disc" / "run.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "0.1"
    record["model"]["sha256"]["slat_flow_model"] = "2" * 64
    record["stages"]["slat"]["recipe"] |= {"revision": 2, "package": {"name": "some-stages", "version": "1.2"}}
    path.write_text(json.dumps(record))
    found = compare_runs(open_run(finished_run), open_run(path.parent))
    told = {change.what: change.b for change in (*found.versions, *found.weights)}
    assert told == {
        "torch": "0.1",
        "slat (flow) revision": 2,
        "slat (flow) package": "some-stages 1.2",
        "slat_flow_model": "2" * 64,
    }


def test_the_command(out: Path, clip: Path, model_folder: Path, tmp_path: Path) -> None:
    disc, other = str(out / "runs" / "disc"), str(again(out, clip, model_folder, "export.size=32"))
    words = [sys.executable, "-m", "ss4d.cli.entry", "diff", disc, other]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "parameters  export.size  64  32" in done.stdout
    assert "The same: input, seed, weights, versions." in done.stdout
    assert "identical: one artifact" in done.stdout
    told = json.loads(CliRunner().invoke(app, ["diff", disc, other, "--json"]).stdout)
    assert told["parameters"] == [{"what": "export.size", "a": 64, "b": 32}]
    assert [stage["verdict"] for stage in told["stages"]] == ["identical"] * 5 + ["differs"]
    assert CliRunner().invoke(app, ["diff", disc, str(tmp_path)]).exit_code == 1  # no run


def test_the_table_gives_as_much_of_a_hash_as_tells_it_apart(out: Path, finished_run: Path) -> None:
    path = out / "runs" / "disc" / "run.json"
    record = json.loads(path.read_text())
    record["model"]["sha256"]["slat_flow_model"] = "0123456789abcdef" * 4
    path.write_text(json.dumps({**record, "seed": 7}))
    lines = CliRunner().invoke(app, ["diff", str(finished_run), str(path.parent)]).stdout.splitlines()
    assert next(line.split() for line in lines if line.startswith("seed")) == ["seed", "42", "7"]
    assert next(line.split()[-1] for line in lines if line.startswith("weights")) == "01234567"
