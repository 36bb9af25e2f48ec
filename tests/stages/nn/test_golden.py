"""The networks and the sampler give the numbers of the authors' released code."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import golden
from tests.helpers.places import DATA, ROOT

CASES = DATA / "golden"
SHIPPED = ROOT / "pipelines" / "doctor" / "golden"  # what `ss4d doctor` computes again


ALL = [*golden.cases(CASES), *golden.cases(SHIPPED)]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_within_tolerance(path: Path) -> None:
    outputs = golden.run(path)
    assert outputs
    assert [output for output in outputs if not output.ok] == []


def test_a_decoder_that_states_no_default_and_holds_no_computed_buffer_gives_the_same(tmp_path: Path) -> None:
    case = Path(copytree(SHIPPED / "slat_decoder_gs", tmp_path / "case"))
    config = json.loads((case / "config.json").read_text())
    for option in ("attn_mode", "expand_self_attn", "qk_rms_norm", "use_checkpoint"):
        del config["args"][option]
    (case / "config.json").write_text(json.dumps(config))
    state = load_file(case / "weights.safetensors")
    assert state.pop("offset_perturbation").any()
    save_file(state, case / "weights.safetensors")
    assert [output for output in golden.run(case) if not output.ok] == []


def test_a_flow_without_its_positions_gives_the_same(tmp_path: Path) -> None:
    case = Path(copytree(SHIPPED / "ss_flow_windowed", tmp_path / "case"))
    state = load_file(case / "weights.safetensors")
    assert state.pop("pos_emb").any()
    save_file(state, case / "weights.safetensors")
    assert [output for output in golden.run(case) if not output.ok] == []


def test_every_kind_of_network_has_a_case() -> None:
    assert {path.name for path in ALL} >= {
        "ss_flow_full",
        "slat_flow_3d_1d",
        "slat_decoder_gs",
        "sampler",
    }


@pytest.mark.parametrize("damage", ["wrong", "nan", "unknown"])
def test_a_wrong_number_fails(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    copytree(CASES / "sampler", tmp_path / "sampler")
    file = tmp_path / "sampler" / "case.safetensors"
    tensors = load_file(file)
    if damage == "unknown":
        tensors["out.more"] = torch.zeros(1)
    else:
        tensors["out.samples"][0, 0] += 1e-3 if damage == "wrong" else float("nan")
    save_file(tensors, file)
    assert golden.main(tmp_path) == 1
    assert "FAIL sampler" in capsys.readouterr().out


def test_a_broken_case_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copytree(CASES / "sampler", tmp_path / "b")
    copytree(CASES / "sampler", tmp_path / "a")
    (tmp_path / "a" / "case.json").write_text("{}")
    assert golden.main(tmp_path) == 1
    printed = capsys.readouterr().out
    assert "FAIL a" in printed
    assert "ok   b" in printed


def test_a_folder_without_cases_fails(tmp_path: Path) -> None:
    assert golden.main(tmp_path) != 0
