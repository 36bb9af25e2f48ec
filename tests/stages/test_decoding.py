"""The decoding stage: every Gaussian sits by its voxel, in its frame, and empty frames stay empty."""

from dataclasses import replace

import pytest
import torch

from ss4d.stages.decoding import decode_gaussians, frame_offsets
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import ModelError
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder, SLatGaussianDecoderArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.types import GaussianClip, StructuredLatents

REPRESENTATION = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 4,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.004,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
ARGS = SLatGaussianDecoderArgs(
    resolution=8,
    model_channels=12,
    latent_channels=3,
    num_blocks=2,
    num_heads=2,
    pe_mode="rope_t",
    window_size=4,
    expand_self_attn=True,
    representation_config=REPRESENTATION,
)
G = 4


@pytest.fixture
def decoder() -> SLatGaussianDecoder:
    torch.manual_seed(0)
    return SLatGaussianDecoder(ARGS, TORCH_OPS).eval()


def latents(num_frames: int, *, empty: tuple[int, ...] = (), resolution: int = 8) -> StructuredLatents:
    generator = torch.Generator().manual_seed(3)
    occupied = torch.rand(num_frames, 8, 8, 8, generator=generator) < 0.1
    occupied[list(empty)] = False
    cells = torch.nonzero(occupied).int()
    return StructuredLatents(
        coords=torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1),
        feats=torch.randn(len(cells), 3, generator=generator),
        num_frames=num_frames,
        resolution=resolution,
    )


@pytest.mark.parametrize(("num_frames", "empty"), [(1, ()), (3, ()), (4, (0, 3)), (5, (1, 2))])
def test_every_gaussian_sits_by_its_voxel_in_its_frame(decoder, num_frames: int, empty: tuple[int, ...]) -> None:
    given = latents(num_frames, empty=empty)
    clip = decode_gaussians(DecodingConfig(), decoder, given)
    assert clip.num_frames == num_frames
    for t in range(num_frames):
        cells = given.coords[given.coords[:, 1] == t][:, 2:]
        frame = clip.frame(t)
        assert len(frame.means) == G * len(cells)
        assert (len(frame.means) == 0) == (t in empty)
        centers = (cells.float() + 0.5) / 8 - 0.5
        away = (frame.means - centers.repeat_interleave(G, dim=0)).abs()
        assert (away <= 0.5 * 1.5 / 8 + 1e-6).all()


def test_gaussians_are_what_the_network_says(decoder) -> None:
    given = latents(3)
    clip = decode_gaussians(DecodingConfig(), decoder, given)
    sites = Sites(given.coords)
    raw = decoder.split(decoder(SparseTensor(sites, given.feats)), given.coords)
    torch.testing.assert_close(clip.means, raw.xyz - 0.5)
    torch.testing.assert_close(clip.colors, 0.5 + 0.28209479 * raw.features_dc[:, 0])
    torch.testing.assert_close(clip.opacities, torch.sigmoid(raw.opacity[:, 0] + torch.logit(torch.tensor(0.1))))
    torch.testing.assert_close(clip.quats.norm(dim=1), torch.ones(len(clip.quats)))
    assert (clip.scales >= 0.0009).all()


def test_values_can_be_trained_on(decoder) -> None:
    clip = decode_gaussians(DecodingConfig(), decoder, latents(2))
    assert isinstance(clip, GaussianClip)
    (clip.means * torch.ones(3, requires_grad=True)).sum().backward()  # tensors of inference mode would refuse


@pytest.mark.parametrize(
    ("frames", "num_frames", "expected"),
    [
        ([], 2, [0, 0, 0]),
        ([0, 0, 2], 3, [0, 2, 2, 3]),
        ([1], 4, [0, 0, 1, 1, 1]),
    ],
)
def test_offsets_count_empty_frames(frames: list[int], num_frames: int, expected: list[int]) -> None:
    coords = torch.zeros(len(frames), 5, dtype=torch.int32)
    coords[:, 1] = torch.tensor(frames)
    assert frame_offsets(coords, num_frames).tolist() == expected


def test_latents_of_another_grid_are_refused(decoder) -> None:
    with pytest.raises(ModelError, match="grid of 16 cells do not fit a decoder for 8"):
        decode_gaussians(DecodingConfig(), decoder, latents(1, resolution=16))


def test_a_long_clip_is_decoded_in_windows_that_are_blended(decoder, caplog) -> None:
    given, calls, heard = latents(19, empty=(2, 9)), [], []
    decoder.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0]))
    caplog.set_level("INFO", logger="ss4d")
    windowed = decode_gaussians(DecodingConfig(window=8), decoder, given, progress=lambda *call: heard.append(call))
    assert "decoding: 19 frames in 4 windows of 8" in caplog.text
    assert [int(x.coords[:, 1].max()) < 8 for x in calls] == [True] * 4
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    whole = decode_gaussians(DecodingConfig(), decoder, given)
    assert torch.equal(windowed.offsets, whole.offsets)
    assert not torch.equal(windowed.means, whole.means)
    torch.testing.assert_close(windowed.means, whole.means, atol=1 / 8, rtol=0)


def test_where_frames_do_not_see_each_other_windows_change_nothing() -> None:
    torch.manual_seed(0)
    alone = SLatGaussianDecoder(replace(ARGS, expand_self_attn=False, pe_mode="ape"), TORCH_OPS).eval()
    given = latents(13, empty=(5, 6))
    windowed, whole = (decode_gaussians(DecodingConfig(window=window), alone, given) for window in (4, None))
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(windowed, name), value, msg=name)


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_a_clip_that_fits_a_window_is_decoded_as_without(decoder, num_frames: int) -> None:
    windowed, whole = (
        decode_gaussians(DecodingConfig(window=window), decoder, latents(num_frames)) for window in (8, None)
    )
    assert torch.equal(windowed.means, whole.means)
