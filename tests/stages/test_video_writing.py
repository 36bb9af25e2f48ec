"""Writing videos: they read back, and are the same each time."""

from pathlib import Path

import pytest
import torch

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.video_io import read_video, write_video


def test_the_encoder_leaves_out_what_comes_out_differently_at_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", torch.zeros(4, 64, 64, 3, dtype=torch.uint8), 12)
    assert b"mbtree=0" in (tmp_path / "a.mp4").read_bytes()  # x264 notes its options in what it writes


def test_written_video_reads_back(tmp_path: Path) -> None:
    frames = torch.zeros(5, 31, 47, 3, dtype=torch.uint8)
    for t in range(5):
        frames[t, :, :] = torch.tensor([40 * t, 200 - 40 * t, 120], dtype=torch.uint8)
    write_video(tmp_path / "a.mp4", iter(frames), 30)
    video = read_video(tmp_path / "a.mp4", InputConfig())
    assert video.frames.shape == (5, 32, 48, 3)
    assert (video.frames[:, :31, :47].int() - frames.int()).abs().max() <= 4
    assert video.fps == pytest.approx(30)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser can start before it has all


def test_no_frame_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], 24)
