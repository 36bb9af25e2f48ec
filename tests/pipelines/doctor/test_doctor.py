"""The examination of a machine: a whole one of this CPU, and what it says of what does not work."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.bench.subjects import Inputs, Subject
from ss4d.pipelines.doctor import doctor, extent, networks, two_frames
from ss4d.pipelines.doctor.cases import case_checks
from ss4d.pipelines.doctor.findings import Check, Findings, guarded
from ss4d.pipelines.doctor.kernels import kernel_checks
from ss4d.stages.ops.attention import AttentionPlan, attention
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.kernel_choice import KERNELS, ORDER, Kernel, Use, choose_kernels
from ss4d.stages.ops.rasterize import rasterize

CPU = torch.device("cpu")
FLOAT32 = Use(device=CPU, dtypes=frozenset({torch.float32}))


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, dict[str, Any]]:
    file = tmp_path_factory.mktemp("doctor") / "card.json"
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu", "--json", str(file)])
    return done, json.loads(file.read_text())


def test_a_cpu_that_works_is_found_to(examined: tuple[Result, dict[str, Any]]) -> None:
    done, found = examined
    assert done.exit_code == 0, done.output
    assert {check["state"] for check in found["checks"]} == {"ok"}
    assert {check["name"] for check in found["checks"] if check["group"] == "golden numbers"} == {
        f"{case} {dtype}"
        for case in ("slat_decoder_gs", "slat_flow_3d_1d", "ss_decoder", "ss_flow_windowed")
        for dtype in ("float32", "bfloat16")
    }
    counts = {group: sum(c["group"] == group for c in found["checks"]) for group in ("kernels", "networks")}
    assert counts == {"kernels": 6, "networks": 7}
    (asset,) = [check for check in found["checks"] if check["name"] == "asset"]
    assert len(asset["numbers"]["counts"]) == 2
    assert found["facts"]["packages"]["torch"] == torch.__version__
    assert found["finished"]


def test_the_page_has_a_line_for_each_finding(examined: tuple[Result, dict[str, Any]]) -> None:
    done, found = examined
    lines = done.stdout.splitlines()
    assert all(Check(**check).line() in lines for check in found["checks"])
    assert lines[-1] == f"{len(found['checks'])} ok"


def wrong_attention(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    return 1.5 * attention(q, k, v, plan)


def test_a_wrong_kernel_fails_where_it_would_be_taken_and_is_broken_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_kernels(FLOAT32)
    monkeypatch.setitem(KERNELS["attention"], "varlen", Kernel(make=lambda _: wrong_attention))  # type: ignore[arg-type]
    monkeypatch.setitem(ORDER["attention"], "cpu", [["flash3"], ["varlen"], ["torch"]])  # type: ignore[arg-type]
    found = {check.name: check for check in kernel_checks(chosen, FLOAT32, "reduced")}
    assert found["attention flash3"].state == "skipped"
    assert found["attention varlen"].state == "broken"
    assert "gives wrong results (float32: off by" in found["attention varlen"].says
    assert found["attention torch"].state == "ok"
    monkeypatch.setitem(KERNELS["attention"], "torch", Kernel(make=lambda _: wrong_attention, reference=True))  # type: ignore[arg-type]
    found = {check.name: check for check in kernel_checks(chosen, FLOAT32, "reduced")}
    assert found["attention torch"].state == "failed"
    assert "choice" in found


def test_wrong_kernels_do_not_give_the_golden_numbers() -> None:
    ops = replace(TORCH_OPS, attention=wrong_attention)
    found = {check.name: check for check in case_checks(CPU, ops, [torch.float32])}
    assert found["ss_flow_windowed float32"].state == "failed"
    assert found["ss_flow_windowed float32"].says.endswith("wrong: v")
    assert found["ss_decoder float32"].state == "ok"


def test_what_has_no_memory_left_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def subjects(_: Inputs) -> Iterator[Subject]:
        def greedy() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")

        yield Subject(stage="slat", work="guided step", products="float32", network=None, fast=greedy)
        yield Subject(
            stage="decoding",
            work="decoder",
            products="float32",
            network=None,
            fast=lambda: torch.ones(9, 9) @ torch.ones(9, 9),
        )
        raise ValueError("no more")

    monkeypatch.setattr(networks, "subjects", subjects)
    given = Inputs(size="tiny", frames=1, voxels=1, device=CPU, dtype=torch.float32, ops=TORCH_OPS, rasterize=rasterize)
    _, slat, decoding, rest = guarded("networks", "passes", partial(networks.network_checks, given))
    assert slat.state == "failed"
    assert slat.says == "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"
    assert decoding.state == "ok"
    assert decoding.numbers["flop"] == 2 * 9**3
    assert (rest.state, rest.says) == ("failed", "ValueError: no more")


def test_a_share_is_of_what_the_network_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "ceilings", lambda *_: {"float32": 1e9, "bfloat16": 1e15})
    given = Inputs(
        size="tiny", frames=1, voxels=9, device=CPU, dtype=torch.bfloat16, ops=TORCH_OPS, rasterize=rasterize
    )
    found = {check.name: check for check in networks.network_checks(given)}
    most = {
        name: check.numbers["flop"] / check.numbers["seconds"] / check.numbers["share"]
        for name, check in found.items()
        if check.numbers.get("share")
    }
    assert most == pytest.approx({
        "conditioning image encoder": 1e9,  # the bundled one has no torso
        "sparse_structure guided step": 1e15,
        "sparse_structure occupancy decoder": 1e15,
        "slat guided step": 1e15,
        "decoding Gaussian decoder": 1e15,
    })  # fmt: skip
    assert found["sparse_structure occupancy decoder"].says.count("of what large matrices reach in bfloat16")


def test_a_failure_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (Check(group="kernels", name="it", state=state, says="so") for state in ("ok", "broken", "failed"))
    monkeypatch.setattr(doctor, "_checks", lambda *_: checks)
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu"])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "1 ok, 1 broken, 1 failed"


def test_where_no_kernel_works_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable(_: torch.device) -> None:
        raise RuntimeError("no driver")

    for name in KERNELS["rasterizer"]:
        monkeypatch.setitem(KERNELS["rasterizer"], name, Kernel(make=unusable))  # type: ignore[arg-type]
    told: list[Check] = []
    findings = doctor.examine(doctor.DoctorOptions(device="cpu"), told.append)
    assert [check.says for check in findings.failed] == [
        "no kernel for rasterizer works here: numba cannot be imported: RuntimeError: no driver; "
        "torch cannot be imported: RuntimeError: no driver"
    ]
    assert told == list(findings.checks)


def test_too_small_a_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_frames, "NEEDED_DISK", 2**60)
    (check,) = two_frames.run_checks("cpu", "published", "float32")
    assert check.state == "skipped"
    assert "set TMPDIR" in check.says


def test_the_published_size_on_a_cpu_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    size, check = extent.fitting_size("cpu", "published")
    assert size == "published"
    assert check is not None
    assert re.search(r"published, on a CPU: about \d+ (min|hours) by arithmetic", check.says)
    # Of 25.3 TFLOP that were counted in a guided step of the structure over two frames, five are made.
    monkeypatch.setattr(extent, "product_rate", lambda _: 1e12)
    assert 5 * 25.3 < extent._seconds(extent.EXTENTS["cpu", "published"]) * extent.EFFICIENCY < 2 * 5 * 25.3


def test_the_published_size_is_reduced_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "NEEDED_MEMORY", 2**60)
    monkeypatch.setattr(doctor, "_checks", lambda *_: iter(()))
    told: list[Check] = []
    findings = doctor.examine(doctor.DoctorOptions(device="cpu", size="published"), told.append)
    assert findings.facts["size"] == "reduced"
    assert [(check.name, check.state) for check in told] == [("size", "skipped")]
    assert "reduced instead" in told[0].says
    assert extent.fitting_size("cuda", None) == ("published", None)
    assert extent.fitting_size("cpu", None) == ("reduced", None)


def test_findings_are_json_whatever_was_measured() -> None:
    check = Check(group="a", name="b", state="failed", says="c", numbers={"rms": float("inf")})
    plain = Findings(facts={}, checks=(check,), finished=True).plain()
    assert json.loads(json.dumps(plain, allow_nan=False))["checks"][0]["numbers"] == {"rms": "Infinity"}


@pytest.mark.parametrize(
    ("file", "words"), [("none/card.json", "cannot be written: No such file"), ("", "and no file: give another")]
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, words: str
) -> None:
    monkeypatch.setattr(doctor, "_checks", lambda *_: pytest.fail("it is examined before that is known"))
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu", "--json", str(tmp_path / file)])
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


def test_what_is_found_is_kept_if_the_process_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def checks(*_: object) -> Iterator[Check]:
        yield Check(group="kernels", name="attention torch", state="ok", says="so")
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_checks", checks)
    file = tmp_path / "card.json"
    with pytest.raises(KeyboardInterrupt):
        doctor.examine(doctor.DoctorOptions(device="cpu", out=file), lambda _: None)
    found = json.loads(file.read_text())
    assert [check["name"] for check in found["checks"]] == ["attention torch"]
    assert not found["finished"]
