"""The bundled saliency network against what the published file of it gives elsewhere."""

import numpy as np
import torch
from safetensors.torch import load_file

from ss4d.stages.segmentation.saliency_net import MEAN, STD, WEIGHTS
from ss4d.stages.segmentation.u2netp import U2NetP
from tests.helpers.places import ROOT

GIVEN = ROOT / "tests" / "data" / "u2netp.safetensors"  # made with OpenCV of the published ONNX file


def test_the_network_gives_what_its_published_file_does() -> None:
    """Also where a side is odd, so that halves are rounded up; both are off by rounding from 64 bits."""
    given = load_file(GIVEN)
    net = U2NetP()
    net.load_state_dict(load_file(WEIGHTS))
    image = (given["image"].numpy().astype(np.float32) / 255 - MEAN) / STD
    with torch.inference_mode():
        found = net(torch.from_numpy(image)[None].permute(0, 3, 1, 2))[0]
    assert found.shape == (97, 113)
    assert 0.1 < (found > 0.5).float().mean() < 0.4
    assert (found - given["saliency"]).abs().max() < 1e-4
