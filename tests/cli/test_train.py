"""`ss4d train` from the command line to a model that `ss4d run` takes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from ss4d.stages.roles import IMAGE_ENCODER
from ss4d.stages.training.clips import read_clip
from ss4d.stages.training.recipe import TINY
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED, file_name
from tests.helpers.places import ROOT
from tests.helpers.unfitted import OFF


def ss4d_train(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ss4d.cli.entry", "train", *map(str, words), "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    done = ss4d_train("smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "the model is in" in done.stderr
    return folder


def test_the_folder_is_a_model(model: Path) -> None:
    assert {p.stem for p in (model / "ckpts").glob("*.safetensors")} == {file_name(role) for role in PUBLISHED}
    for file in (model / "ckpts").glob("*.safetensors"):
        assert {str(tensor.dtype) for tensor in load_file(file).values()} == {"torch.float16"}
    assert {p.stem for p in (model / "training").glob("*.safetensors")} == set(ENCODERS)
    assert not (model / "NOTICE.md").exists()
    card = (model / "MODEL_CARD.md").read_text()
    assert "| structure | 4 | 2 |" in card
    numbers = json.loads((model / "pipeline.json").read_text())["args"]["slat_normalization"]
    assert len(numbers["mean"]) == len(numbers["std"]) == 8
    assert numbers["std"] != [1.0] * 8
    for step in ("occupancy", "appearance", "structure", "latents", "voxels", "gaussians"):
        assert (model / "training" / step / "curves.svg").exists()
        assert list((model / "training" / step / "pictures").glob("*.png"))


def test_a_run_takes_the_model(model: Path, clip: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "ss4d.cli.entry",
        "run",
        clip,
        "--out",
        tmp_path,
        "--engine",
        "direct",
        "--device",
        "cpu",
    ]
    sets = (f"model={model}", "slat.sampler.steps=2", "sparse_structure.sampler.steps=2", "segmentation.size=64", *OFF)
    more = [word for value in (*sets, "export.size=64", "export.frames=6") for word in ("--set", value)]
    done = subprocess.run([*map(str, words), *more], capture_output=True, text=True, timeout=240, check=False)
    # So few steps teach so little that there may be no voxel at all, which is an answer, too.
    assert done.returncode == 0 or "structure came out empty" in done.stderr, done.stderr


def test_adapters_go_on_from_a_model(model: Path, tmp_path: Path) -> None:
    done = ss4d_train("smoke", "--out", tmp_path, "--init", model, "--lora", "2")
    assert done.returncode == 0, done.stderr
    for role in PUBLISHED:
        old, new = (load_file(folder / "ckpts" / f"{file_name(role)}.safetensors") for folder in (model, tmp_path))
        assert old.keys() == new.keys()
        same = all(old[name].equal(new[name]) for name in old)
        assert same == ("flow" not in role), role
    assert (tmp_path / "pipeline.json").read_text() == (model / "pipeline.json").read_text()
    assert "adapters of rank 2" in (tmp_path / "MODEL_CARD.md").read_text()


def test_a_training_that_goes_on_may_be_of_other_length_and_pace(model: Path, tmp_path: Path) -> None:
    words = ("smoke", "--out", tmp_path, "--init", model, "--only", "structure", "--steps", "3")
    done = ss4d_train(*words, "--rate", "0.5")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "training" / "structure" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert max(row["rate"] for row in rows) == pytest.approx(0.5e-3)
    assert "| structure | 3 | 2 | 0.0005 |" in (tmp_path / "MODEL_CARD.md").read_text()
    other = ss4d_train(*words)
    assert other.returncode == 1
    assert "comes from another training" in other.stderr


@pytest.mark.parametrize(
    ("more", "learned"),
    [(("--lora", "2"), {"slat_flow_model", "sparse_structure_flow_model"}), ((), set(PUBLISHED) - {IMAGE_ENCODER})],
)
def test_a_model_without_encoders_keeps_its_codes(
    model: Path, tmp_path: Path, more: tuple[str, ...], learned: set[str]
) -> None:
    """Encoders learn to code for its decoders, and only in the end decoders learn on what the flows make."""
    bare, out = tmp_path / "bare", tmp_path / "out"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("training"))
    done = ss4d_train("smoke", "--out", out, "--init", bare, *more)
    assert done.returncode == 0, done.stderr
    for role in PUBLISHED:
        old, new = (load_file(folder / "ckpts" / f"{file_name(role)}.safetensors") for folder in (bare, out))
        assert all(old[name].equal(new[name]) for name in old) == (role not in learned), role
    assert (out / "pipeline.json").read_text() == (bare / "pipeline.json").read_text()
    assert {p.stem for p in (out / "training").glob("*.safetensors")} == set(ENCODERS)


def test_a_second_run_writes_nothing(model: Path) -> None:
    card = model / "MODEL_CARD.md"
    told = card.read_text()
    card.write_text(f"{told}\nMeasured by hand.\n")
    done = ss4d_train("smoke", "--out", model)
    assert done.returncode == 0, done.stderr
    assert card.read_text().endswith("Measured by hand.\n")
    card.write_text(told)


def test_a_checkpoint_of_another_start_is_refused(model: Path, tmp_path: Path) -> None:
    words = ("smoke", "--out", tmp_path / "out", "--only", "occupancy", "--steps", "3000")
    while not list((tmp_path / "out").rglob("step.json")):  # on a busy machine the time is up before the first step
        stopped = ss4d_train(*words, "--minutes", "0.2")
        assert stopped.returncode == 0, stopped.stderr
        assert "the time was up in occupancy" in stopped.stderr
    other = ss4d_train(*words, "--minutes", "0.2", "--init", model)
    assert other.returncode == 1
    assert "holds another training" in other.stderr
    again = ss4d_train(*words, "--minutes", "0.2")
    assert again.returncode == 0, again.stderr


def test_time_that_is_up_ends_the_making_of_clips(tmp_path: Path) -> None:
    began = time.monotonic()
    done = ss4d_train("tiny", "--out", tmp_path, "--minutes", "0.1")
    assert done.returncode == 0, done.stderr
    assert "the time was up in images" in done.stderr
    assert 0 < len(list(tmp_path.glob("training/clips/*/*.safetensors"))) < 2000
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("huge",), "there is no recipe 'huge'"),
        (("smoke", "--only", "structure"), "structure needs what images leaves"),
        (("smoke", "--only", "voxels"), "voxels needs what occupancy leaves"),
        (("smoke", "--only", "dancing"), "--only dancing is none of the steps"),
        (("smoke", "--lora", "4"), "give --init with --lora"),
        (("smoke", "--rate", "0"), "--rate 0 is no part of a learning rate"),
        (("smoke", "--rate", "nan"), "--rate nan is no part of a learning rate"),
        (("smoke", "--init", "nowhere"), "no model folder"),
        (("smoke", "--data", "nowhere"), "manifest.parquet"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ss4d.cli.main import app

    result = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "x"), "--device", "cpu"])
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())


def plain_training(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ss4d.stages.training", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--out", "file"), 1, "cannot be used: Not a directory"),
        (("--out", "x", "--device", "cuda"), 1, "torch finds no CUDA device here"),
        (("--out", "x", "--lora", "0"), 2, "--lora: '0' is too little"),
        (("--out", "x", "--deepen", "--only", "images"), 1, "give --init and --only images with it"),
    ],
)
def test_the_plain_command_says_in_a_sentence_what_cannot_be_done(
    words: tuple[str, ...], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("file").touch()
    _, said = (training := plain_training("smoke", *words)).communicate(timeout=120)
    assert training.returncode == code, said
    assert sentence in said
    assert "Traceback" not in said


def test_ctrl_c_ends_the_plain_command_with_a_sentence(tmp_path: Path) -> None:
    words = ("--out", tmp_path / "x", "--steps", "100000", "--only", "occupancy", "--device", "cpu")
    training = plain_training("smoke", *words)
    deadline = time.monotonic() + 240
    while not (tmp_path / "x" / "training" / "occupancy").exists():
        assert training.poll() is None, training.communicate()[1]
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.02)
    training.send_signal(signal.SIGINT)
    _, said = training.communicate(timeout=60)
    assert training.returncode == 130, said
    assert "interrupted; checkpoints and finished steps are kept" in said
    assert "Traceback" not in said


def test_ctrl_c_ends_the_processes_that_make_clips_and_keeps_what_they_made(tmp_path: Path) -> None:
    training = plain_training("tiny", "--out", tmp_path / "x", "--only", "occupancy", "--device", "cpu")
    made = tmp_path / "x" / "training" / "clips"
    deadline = time.monotonic() + 240
    while len(list(made.glob("*/[0-9]*.safetensors"))) < 2:
        assert training.poll() is None, training.communicate()[1]
        assert time.monotonic() < deadline, "no clip was made"
        time.sleep(0.02)
    makers = psutil.Process(training.pid).children(recursive=True)
    os.killpg(training.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    _, said = training.communicate(timeout=60)
    assert training.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(makers, timeout=30)[1] == []
    for file in made.glob("*/[0-9]*.safetensors"):
        assert read_clip(file).num_frames == TINY.plans["occupancy"].pool.num_frames


def test_records_are_trained_on_and_a_bad_one_is_named(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ss4d.cli.main import app
    from ss4d.pipelines.training.make_records import Sizes, make_records
    from ss4d.pipelines.training.records import open_records
    from ss4d.stages.types import silent

    sizes = Sizes(frames=4, size=32, views=2, resolution=8, axes="camera")
    make_records(tmp_path / "data", num_clips=3, seed=0, sizes=sizes, families=[], workers=1, progress=silent)
    row = open_records(tmp_path / "data").rows[1]
    stored = next((tmp_path / "data" / "store").rglob(f"{row.key}.zarr"))
    for chunk in (path for path in stored.rglob("*") if path.is_file() and path.suffix != ".json"):
        chunk.write_bytes(b"not a chunk")
    words = ["smoke", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--only", "occupancy"]
    refused = CliRunner().invoke(app, ["train", *words, "--fresh"])
    assert refused.exit_code == 1
    assert "choose one" in refused.output
    result = CliRunner().invoke(app, ["train", *words, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert f"1 of 3 records could not be used: {row.id}" in " ".join(result.output.split())


def test_training_on_made_clips_needs_few_packages() -> None:
    unwanted = (
        "pydantic",
        "zarr",
        "PIL",
        "cv2",
        "matplotlib",
        "prefect",
        "typer",
        "rich",
        "pygltflib",
        "pyarrow",
        "av",
    )
    lines = f"import sys\nsys.modules.update(dict.fromkeys({unwanted!r}))\nimport ss4d.stages.training.__main__"
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=120)
