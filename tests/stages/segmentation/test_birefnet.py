"""BiRefNet, with a small network in its place: what it is given, and what is made of what it gives."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ss4d.stages.errors import ModelError
from ss4d.stages.segmentation.config import BirefnetConfig
from ss4d.stages.segmentation.networks import segment_by_birefnet
from ss4d.stages.segmentation.saliency_net import MEAN, STD
from ss4d.stages.types import Video

SIDE = 64


def write_red_detector(path: Path, channels: int = 3) -> Path:
    """An ONNX file as BiRefNet's, of one convolution: its logits are high where an image is red and not green."""
    scale = 16.0 * STD.reshape(1, 3, 1, 1) * np.float32([1, -1, 0]).reshape(1, 3, 1, 1)  # undoes the normalization
    weight = np.resize(scale, (1, channels, 1, 1)).astype(np.float32)
    bias = np.float32([16.0 * float(MEAN[0] - MEAN[1]) - 6.0])
    images = helper.make_tensor_value_info("input_image", TensorProto.FLOAT, [1, channels, SIDE, SIDE])
    logits = helper.make_tensor_value_info("output_image", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    node = helper.make_node("Conv", ["input_image", "weight", "bias"], ["output_image"])
    held = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph([node], "red", [images], [logits], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def frames_of_a_red_box(lefts: list[int]) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(60, 140, (len(lefts), 80, 120, 1))
    frames = np.repeat(noise, 3, -1).astype(np.uint8)
    for frame, left in zip(frames, lefts, strict=True):
        frame[20:60, left : left + 30] = 230, 30, 40
    return torch.from_numpy(frames)


def test_birefnet_gives_alpha_at_the_size_of_the_frames(tmp_path: Path) -> None:
    weights = write_red_detector(tmp_path / "red.onnx")
    video = Video(frames=frames_of_a_red_box([10, 30, 50]), fps=8.0)
    clip = segment_by_birefnet(BirefnetConfig(size=64), weights, video)
    assert clip.method == "birefnet"
    assert clip.confidence.min() > 0.9
    left, top, right, bottom = clip.crop.tolist()
    assert abs((left + right) / 2 - 45) < 2  # from 10 to 80
    assert abs((top + bottom) / 2 - 40) < 2
    pixel = ((right - left) / 64) ** 2
    assert (clip.alpha.float().sum((1, 2)) / 255 * pixel).tolist() == pytest.approx([1200] * 3, rel=0.1)


def test_what_is_no_birefnet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"no network")
    video = Video(frames=frames_of_a_red_box([10]), fps=8.0)
    for name, sentence in (("text.onnx", "is not the ONNX file of BiRefNet"), ("four.onnx", "not images")):
        if name == "four.onnx":
            write_red_detector(tmp_path / name, channels=4)
        with pytest.raises(ModelError, match=sentence):
            segment_by_birefnet(BirefnetConfig(), tmp_path / name, video)
