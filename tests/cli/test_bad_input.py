"""Whatever a user can do wrong: one clear sentence, an exit code, no traceback, and completed stages kept."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ss4d.pipelines.errors import explain
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import input_digest
from ss4d.stages.video_io import write_video
from tests.conftest import draw_frames, save_frames

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(finished: subprocess.CompletedProcess[str], *words: str) -> None:
    """The run failed with one sentence that holds `words`."""
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    sentences = [line for line in finished.stderr.splitlines() if line.startswith("ss4d: ")]
    assert len(sentences) == 1, finished.stderr
    for word in words:
        assert word in sentences[0]


def stored(out: Path) -> set[str]:
    return {p.parent.parent.name for p in (out / "store").glob("*/*/*.zarr")}


def test_a_missing_file(ss4d: Run, tmp_path: Path) -> None:
    refused(ss4d(tmp_path / "none.mp4", tmp_path / "out"), "none.mp4")


def without_privileges(words: list[str]) -> list[str]:
    """The command as one whom file permissions bind: root gives up the right to pass them by."""
    if os.geteuid() != 0:
        return words
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *words]


def test_an_unreadable_file(command: Callable[..., list[str]], tmp_path: Path) -> None:
    file = tmp_path / "locked.mp4"
    file.write_bytes(b"x")
    file.chmod(0)
    words = without_privileges(command(file, tmp_path / "out", "--engine", "direct"))
    refused(subprocess.run(words, capture_output=True, text=True, check=False), "locked.mp4", "ermission")


def test_a_text_file_called_mp4(ss4d: Run, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    refused(ss4d(tmp_path / "text.mp4", tmp_path / "out"), "text.mp4")


def test_an_empty_folder(ss4d: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(ss4d(tmp_path / "empty", tmp_path / "out"), "empty")


def test_mixed_sizes(ss4d: Run, tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "mixed", draw_frames(2))
    Image.new("RGBA", (20, 30)).save(folder / "2.png")
    refused(ss4d(folder, tmp_path / "out"), "2.png", "20", "48")


def test_no_frames(ss4d: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", torch.zeros(3, 32, 32, 3, dtype=torch.uint8), 24)
    refused(ss4d(tmp_path / "video.mp4", tmp_path / "out", "--set", "input.start=3"), "input.start", "3")


def test_a_video_of_zero_frames(ss4d: Run, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "zero.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        container.start_encoding()
    refused(ss4d(tmp_path / "zero.mkv", tmp_path / "out"), "zero.mkv")


def test_a_transparent_clip(ss4d: Run, tmp_path: Path) -> None:
    refused(ss4d(save_frames(tmp_path / "clear", draw_frames(2) * 0), tmp_path / "out"), "transparent")


def test_no_foreground(ss4d: Run, tmp_path: Path) -> None:
    frames = np.full((2, 64, 64, 3), 128, np.uint8)
    refused(ss4d(save_frames(tmp_path / "plain", frames), tmp_path / "out"), "foreground")


def test_an_empty_structure(ss4d: Run, tmp_path: Path, clip: Path, model_folder: Path) -> None:
    model = tmp_path / "empty_model"
    shutil.copytree(model_folder, model)
    weights = model / "ckpts/sparse_structure_decoder.safetensors"
    state = load_file(weights)
    state["out_layer.2.bias"] = state["out_layer.2.bias"] - 1e4
    save_file(state, weights)
    out = tmp_path / "out"
    refused(ss4d(clip, out, "--set", f"model={model}"), "structure", "empty")
    assert stored(out) == {"segmentation", "conditioning"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("slat.stepz=3", ["slat.stepz"]),
        ("slat.sampler.steps=-2", ["slat.sampler.steps", "-2"]),
        ("sampler", ["key=value"]),
        ("kernels.attention=best", ["kernels.attention", "'best'", "'flash3'"]),
    ],
)
def test_a_wrong_configuration(ss4d: Run, tmp_path: Path, clip: Path, override: str, words: list[str]) -> None:
    refused(ss4d(clip, tmp_path / "out", "--set", override), *words)


def test_truncated_weights(ss4d: Run, tmp_path: Path, clip: Path, model_folder: Path) -> None:
    model = tmp_path / "cut"
    shutil.copytree(model_folder, model)
    weights = model / "ckpts/slat_flow_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(ss4d(clip, tmp_path / "out", "--set", f"model={model}"), "slat_flow_model.safetensors")


def test_a_missing_weights_file(ss4d: Run, tmp_path: Path, clip: Path, model_folder: Path) -> None:
    model = tmp_path / "lacking"
    shutil.copytree(model_folder, model)
    (model / "ckpts/slat_decoder_gs.safetensors").unlink()
    refused(ss4d(clip, tmp_path / "out", "--set", f"model={model}"), "slat_decoder_gs.safetensors", "missing")


def test_no_model_folder(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    refused(ss4d(clip, tmp_path / "out", "--set", "model=nowhere"), "nowhere", "hub:")


def test_published_weights_without_a_network(tmp_path: Path, clip: Path) -> None:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    words = [
        sys.executable,
        "-m",
        "ss4d.cli.entry",
        "run",
        str(clip),
        "--out",
        str(tmp_path / "out"),
        "--config",
        "ss4d",
    ]
    finished = subprocess.run(words, capture_output=True, text=True, env=offline, check=False)
    refused(finished, "lizb6626/SS4D", "--set model=PATH")


def test_cuda_where_there_is_none(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    refused(ss4d(clip, tmp_path / "out", "--device", "cuda"), "--device cpu")


def test_an_image_encoder_nothing_would_use(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    refused(ss4d(clip, tmp_path / "out", "--set", "image_encoder=nowhere.safetensors"), "its own image encoder")


def test_another_input_of_the_same_name(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    assert ss4d(clip, tmp_path / "out").returncode == 0
    other = save_frames(tmp_path / "disc", draw_frames(1))
    refused(ss4d(other, tmp_path / "out"), str(clip), "--name")
    assert len(list((tmp_path / "out/runs/disc/frames").iterdir())) == 4
    assert ss4d(other, tmp_path / "out", "--name", "kreis_円").returncode == 0


def test_results_that_cannot_be_laid_out(ss4d: Run, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "out/runs/disc/turntable.mp4/full").mkdir(parents=True)
    refused(ss4d(clip, tmp_path / "out"), "turntable.mp4")
    assert json.loads((tmp_path / "out/runs/disc/run.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("content", ["[1]", "{", '{"stages": 3}'])
def test_a_damaged_record_is_replaced(ss4d: Run, tmp_path: Path, clip: Path, content: str) -> None:
    record = tmp_path / "out/runs/disc/run.json"
    record.parent.mkdir(parents=True)
    record.write_text(content)
    finished = ss4d(clip, tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert "run.json is damaged" in finished.stderr
    assert json.loads(record.read_text())["state"] == "complete"


def test_a_dead_prefect_server(command: Callable[..., list[str]], tmp_path: Path, clip: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    words = command(clip, tmp_path / "out")
    finished = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    refused(finished, "http://127.0.0.1:9/api", "--engine direct")


@pytest.mark.parametrize("name", ["../elsewhere", "-"])
def test_a_name_that_would_leave_the_folder_or_be_an_option(ss4d: Run, tmp_path: Path, clip: Path, name: str) -> None:
    refused(ss4d(clip, tmp_path / "out", "--name", name), "--name", repr(name))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, too small for a run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(ss4d: Run, clip: Path, small_disk: Path) -> None:
    refused(ss4d(clip, small_disk / "out"), "disk is full")
    assert stored(small_disk / "out") >= {"segmentation"}
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    again = ss4d(clip, small_disk / "out")
    assert again.returncode == 0, again.stderr
    made = json.loads((small_disk / "out/runs/disc/run.json").read_text())
    assert made["stages"]["segmentation"]["state"] == "reused"


def test_a_read_only_folder(command: Callable[..., list[str]], clip: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    words = without_privileges(command(clip, locked / "out", "--engine", "direct"))
    refused(subprocess.run(words, capture_output=True, text=True, check=False), "cannot be written", "--out")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_what_a_full_disk_is_told_as(code: int) -> None:
    sentence = explain(OSError(code, os.strerror(code), "/data/out/store"))
    assert sentence is not None
    assert sentence.startswith("the disk is full (/data/out/store)")


@pytest.mark.parametrize("use", [os.stat, os.path.realpath, open])
def test_a_path_that_no_file_system_has(use: Callable[[str], object]) -> None:
    """No word of a command has a NUL character, but a record or a configuration may."""
    with pytest.raises(ValueError, match="null") as caught:
        use("a\0b")
    sentence = explain(caught.value)
    assert sentence is not None
    assert "NUL character" in sentence
    with pytest.raises(InputError, match="NUL character"):
        input_digest(Path("a\0b"))


def test_too_little_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    sentence = explain(caught.value)
    assert sentence is not None
    assert "not enough memory" in sentence


def test_a_file_in_place_of_the_output_folder(ss4d: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    refused(ss4d(clip, tmp_path / "out"), "out")


def test_debug_shows_the_traceback(ss4d: Run, tmp_path: Path) -> None:
    finished = ss4d(tmp_path / "none.mp4", tmp_path / "out", "--debug")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
