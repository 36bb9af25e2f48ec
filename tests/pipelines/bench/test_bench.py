"""The benchmark's numbers: what is counted, what is timed, and that the naive way gives the same."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.bench import clock
from ss4d.pipelines.bench.subjects import Inputs, num_subjects, shells, subjects
from ss4d.stages.nn.block import FeedForward
from ss4d.stages.nn.column_encoder import Convolution
from ss4d.stages.nn.image_encoders import VisionTransformer, VisionTransformerArgs
from ss4d.stages.ops.attention import plan
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.ops.varlen import torch_varlen
from ss4d.stages.ops.windows import Groups
from tests.benchmarks.compare import compared

CPU = torch.device("cpu")
SMALL = Inputs(size="tiny", frames=3, voxels=60, device=CPU, dtype=torch.float32, ops=TORCH_OPS, rasterize=rasterize)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bench") / "report.json"
    words = ["bench", "--device", "cpu", "--frames", "3", "--voxels", "60", "--repeats", "1", "--out", str(file)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "slat" in result.stdout
    assert "naive / this" in result.stdout
    return file


@torch.no_grad()
def test_the_naive_way_gives_the_same() -> None:
    measured = list(subjects(SMALL))
    assert len(measured) == num_subjects()
    compared_steps = [subject for subject in measured if subject.plain]
    assert [subject.stage for subject in compared_steps] == ["sparse_structure", "slat"]
    for subject in compared_steps:
        assert subject.plain is not None
        for fast, plain in zip(subject.fast(), subject.plain(), strict=True):
            assert fast.std() > 0.01
            assert_close(fast, plain, atol=1e-4, rtol=1e-4)


def test_arithmetic_is_that_of_the_layers() -> None:
    layer, x = FeedForward(8, 4), torch.randn(10, 8)
    network = nn.Sequential(layer, nn.Linear(8, 3))
    total, layers = clock.costs(lambda: network(x), network, CPU)
    assert layers["feed-forward"].flop == 2 * 10 * 8 * 32 * 2
    assert layers[clock.REST].flop == 2 * 10 * 8 * 3
    assert total == sum(cost.flop for cost in layers.values())


def test_seconds_are_those_of_the_layers() -> None:
    class Slow(FeedForward):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            begun = time.process_time()
            while time.process_time() < begun + 0.05:
                pass
            return x

    network = nn.Sequential(Slow(2, 1), nn.Identity(), Slow(2, 1))
    _, layers = clock.costs(lambda: network(torch.zeros(1, 2)), network, CPU)
    assert layers["feed-forward"].seconds >= 0.1
    assert 0 <= layers[clock.REST].seconds < layers["feed-forward"].seconds


def test_attention_is_counted_on_a_cpu() -> None:
    q = torch.randn(1, 2, 64, 16)
    total, _ = clock.costs(lambda: nn.functional.scaled_dot_product_attention(q, q, q), None, CPU)
    assert total == 2 * 2 * (2 * 64 * 64 * 16)


def test_attention_of_unequal_groups_is_counted_where_torch_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class StandIn(TorchDispatchMode):  # for the kernel, which a CPU does not have
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            done = func is torch.ops.torch_attn._varlen_attn.default
            return (args[0], args[0], args[0]) if done else func(*args, **(kwargs or {}))

    attend, plan_ = torch_varlen(), plan(Groups((3, 5)), Groups((7, 2)), CPU)
    monkeypatch.delitem(flop_registry, torch.ops.torch_attn._varlen_attn, raising=False)
    q, k = torch.zeros(8, 2, 16, dtype=torch.float16), torch.zeros(9, 2, 16, dtype=torch.float16)
    with StandIn():
        total, _ = clock.costs(lambda: attend(q, k, k, plan_), None, CPU)
    assert total == 2 * 2 * 2 * 16 * (3 * 7 + 5 * 2)


def test_products_have_the_format_of_most_weights() -> None:
    args = VisionTransformerArgs(image_size=28, patch_size=14, model_channels=48, num_blocks=4, num_heads=2)
    encoder = VisionTransformer(args)
    assert clock.products_format(encoder, CPU) == "float32"
    encoder.set_torso_dtype(torch.float16)
    assert clock.products_format(encoder, CPU) == "float16"


def test_convolutions_in_float32_are_rounded_on_a_card_unless_it_is_forbidden() -> None:
    network, card = nn.Sequential(nn.Conv3d(8, 8, 3), nn.Linear(8, 8)), torch.device("cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        assert clock.products_format(network, card) == "tf32"
        assert clock.products_format(Convolution(8, 8), card) == "tf32"
        assert clock.products_format(network, CPU) == "float32"
        assert clock.products_format(network.half(), card) == "float16"
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert clock.products_format(network.float(), card) == "float32"


def test_shells_are_sites_of_so_many_voxels() -> None:
    coords = shells(3, 50, 16)
    assert len(Sites(coords)) == 150
    assert torch.bincount(coords[:, 1]).tolist() == [50] * 3
    assert int(coords.max()) < 16


def test_a_report_has_a_row_for_each_work_and_its_layers(report: Path) -> None:
    content = json.loads(report.read_text())
    assert content["facts"]["frames"] == 3
    rows = content["rows"]
    whole = [row for row in rows if not row["layers"]]
    assert [row["stage"] for row in whole] == [
        "conditioning", "sparse_structure", "sparse_structure", "slat", "decoding", "export",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 and row["peak_memory"] > 0 for row in whole)
    assert {row["layers"] for row in rows if row["stage"] == "slat"} == {
        "", "convolution", "self-attention", "cross-attention", "feed-forward", "rest",
    }  # fmt: skip
    assert [row["ratio"] is not None for row in whole] == [False, True, False, True, False, False]


def test_stages_that_are_asked_for_are_measured_alone(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["bench", "--device", "cpu", "--frames", "2", "--voxels", "40", "--repeats", "1", "--out", str(file)]
    result = CliRunner().invoke(app, [*words, "--stage", "decoding", "--stage", "slat"])
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text())["rows"]
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["slat", "decoding"]


def test_two_reports_are_compared_row_by_row(report: Path) -> None:
    old = json.loads(report.read_text())
    new = json.loads(report.read_text())
    new["rows"][0]["seconds"] = old["rows"][0]["seconds"] / 2
    del new["rows"][-1]
    lines = compared(old, new)
    assert lines[0].endswith("2.00")
    assert lines[1].endswith("1.00")
    assert "only in the old" in lines[-1]
    new["facts"]["frames"] = 5
    assert any("frames" in line and "3" in line and "5" in line for line in compared(old, new))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--voxels", "5000"], "--voxels must be at most 4096"),
        (["--frames", "0"], "--frames"),
        (["--size", "huge"], "--size"),
        (["--stage", "segmentation"], "--stage segmentation: measured are conditioning, sparse_structure, slat"),
        (["--out", "/nowhere/report.json"], "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_begins(words: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--device", "cpu", "--frames", "1", *words])
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert "Traceback" not in result.output
