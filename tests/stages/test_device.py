"""Every stage that computes on a device, on a device that is not there: nothing is left behind on the CPU, and no
sampler step waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ss4d.stages import sampling
from ss4d.stages.conditioning import encode_images
from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.image_encoders import VisionTransformer, VisionTransformerArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Clip, Progress, silent
from ss4d.stages.weights import load_role
from tests.conftest import draw_frames
from tests.helpers.places import ROOT
from tests.helpers.pretend_device import DeviceError, PretendDevice

FRAMES, STEPS = 2, 3
# Steps with and without guidance.
SAMPLER = SamplerConfig(steps=STEPS, cfg_strength=2.0, cfg_interval=(0.5, 1.0), rescale_t=3.0, temperature=1.0)


@dataclass(frozen=True)
class Results:
    """What the stages gave, all on the CPU."""

    tokens: Tensor
    coords: Tensor
    latents: Tensor
    means: Tensor
    opacities: Tensor


def run_stages(move: Callable[[torch.nn.Module], torch.nn.Module], progress: Progress) -> Results:
    """The stages of the bundled model, on its networks as `move` gives them back."""
    folder = ModelFolder.open(ROOT / "configs" / "models" / "tiny")

    def network(role: str) -> torch.nn.Module:
        return move(load_role(folder, role, TORCH_OPS, device=torch.device("cpu")))

    frames = torch.from_numpy(draw_frames(FRAMES, size=64))
    clip = Clip(
        rgb=frames[..., :3],
        alpha=frames[..., 3],
        crop=torch.tensor([0, 0, 64, 64]),
        confidence=torch.ones(FRAMES),
        method="alpha",
        fps=8.0,
    )
    tokens = encode_images(ConditioningConfig(), network(IMAGE_ENCODER), clip)
    flow, occupancy = network(STRUCTURE_FLOW), network(STRUCTURE_DECODER)
    seed = torch.Generator().manual_seed
    structure = SparseStructureConfig(sampler=SAMPLER)
    voxels = sample_structure(structure, flow, occupancy, tokens, seed(1), progress=progress)
    slat, numbers = SlatConfig(sampler=SAMPLER), folder.slat_normalization
    latents = sample_latents(slat, network(LATENT_FLOW), numbers, tokens, voxels, seed(1), progress=progress)
    gaussians = decode_gaussians(DecodingConfig(), network(GAUSSIAN_DECODER), latents)
    return Results(tokens.feats, voxels.coords, latents.feats, gaussians.means, gaussians.opacities)


def on_the_device() -> Results:
    """The stages on a device that is not there; from the first sampler step's end to the last's, nothing may wait."""
    with PretendDevice(values=True) as device:
        return run_stages(device.move, lambda done, total: device.forbid_waiting(done < total))


def test_the_device_gives_what_the_cpu_gives() -> None:
    expected, given = run_stages(lambda network: network, silent), on_the_device()
    assert len(expected.coords) > 100
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(given, name), value, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
def test_so_does_the_published_kind_of_image_encoder() -> None:
    args = VisionTransformerArgs(image_size=28, patch_size=14, model_channels=12, num_blocks=2, num_heads=2)
    encoder, images = VisionTransformer(args).eval(), torch.rand(2, 3, 28, 28)
    expected = encoder(images)
    with PretendDevice(values=True) as device:
        given = device.move(encoder)(device.there(images)).cpu()
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda v: v + torch.zeros(v.shape), "tensors of the CPU and of the device"),
        (lambda v: v * v.detach().cpu().numpy().max(), "waits for the device"),
        (lambda v: v * v.detach().numpy().max(), "numpy"),
        (lambda v: v if v.abs().max() > 0 else -v, "waits for the device"),
        (lambda v: v * v.abs().max().item(), "waits for the device"),
        (lambda v: v * len(v[v > 0].tolist()), "waits for the device"),
        (lambda v: v * len(v.nonzero()), "waits for the device"),
    ],
)
def test_a_fault_inside_a_sampler_step_is_found(
    fault: Callable[[Tensor], Tensor], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = sampling.guided

    def at_fault(*args: object) -> sampling.Velocity:
        velocity = guided(*args)
        return lambda x, t: fault(velocity(x, t))

    monkeypatch.setattr(sampling, "guided", at_fault)
    with pytest.raises(DeviceError, match=words):
        on_the_device()
