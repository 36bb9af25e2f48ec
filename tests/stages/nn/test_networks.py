"""What holds for the flow networks, the Gaussian decoder and the latent encoder on any input."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from ss4d.stages.errors import InputError, ModelError
from ss4d.stages.nn.embed import absolute_position
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder, SLatGaussianDecoderArgs
from ss4d.stages.nn.latent_encoder import SLatEncoder, SLatEncoderArgs
from ss4d.stages.nn.latent_flow import SLatFlow4DModel, SLatFlow4DModelArgs
from ss4d.stages.nn.norm import layer_norm
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel, SparseStructureFlow4DModelArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites, SparseTensor, sort
from tests.helpers import reference_ops as reference
from tests.stages.ops.test_coords import random_coords

STRUCTURE = SparseStructureFlow4DModelArgs(
    resolution=4,
    in_channels=3,
    model_channels=24,
    cond_channels=10,
    out_channels=3,
    num_blocks=2,
    num_heads=2,
    patch_size=2,
    pe_mode="rope_t",
    qk_rms_norm=True,
    expand_self_attn=True,
    window_size=2,
)
LATENT = SLatFlow4DModelArgs(
    resolution=8,
    in_channels=3,
    model_channels=24,
    cond_channels=10,
    out_channels=3,
    num_blocks=2,
    num_heads=2,
    patch_size=2,
    io_block_channels=(12,),
    io_block_channels_t=(24,),
    conv_type="3D_1D",
    pe_mode="rope_t",
    qk_rms_norm=True,
    qk_rms_norm_cross=True,
    expand_self_attn=True,
)
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
DECODER = SLatGaussianDecoderArgs(
    resolution=8,
    model_channels=24,
    latent_channels=3,
    num_blocks=2,
    num_heads=2,
    window_size=4,
    pe_mode="rope_t",
    expand_self_attn=True,
    representation_config=REPRESENTATION,
)
VARIANTS = {
    "3D_1D": LATENT,
    "3D_4D": replace(LATENT, conv_type="3D_4D"),
    "4D": replace(LATENT, conv_type="4D", io_block_channels_t=None),
    "non": replace(LATENT, conv_type="non"),
    "no skips": replace(LATENT, use_skip_connection=False, num_io_res_blocks=1, num_io_res4d_blocks=3),
    "two levels": replace(LATENT, patch_size=4, io_block_channels=(6, 12), io_block_channels_t=(24, 18)),
    "frames alone": replace(LATENT, expand_self_attn=False, share_mod=True),
}
FRAMES = 4


def built(kind: Callable[..., nn.Module], args: Any) -> Any:
    """A network whose every weight is random, zeros and ones too, so that nothing cancels."""
    torch.manual_seed(0)
    net = kind(args, TORCH_OPS).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return net


def latents(seed: int, clips: int = 2, frames: int = FRAMES, size: int = 8) -> tuple[SparseTensor, Tensor, Tensor]:
    """Features, times and tokens for a latent flow."""
    torch.manual_seed(seed)
    coords = random_coords(seed, size=(clips, frames, size, size, size), count=150 * clips)
    x = SparseTensor(Sites(coords), torch.randn(len(coords), 3))
    return x, 1000 * torch.rand(clips, frames), torch.randn(clips, frames, 5, 10)


def clip(x: SparseTensor, b: int) -> tuple[SparseTensor, Tensor]:
    """Clip `b` alone, and which rows it was."""
    mine = x.coords[:, 0] == b
    coords = x.coords[mine] - torch.tensor([b, 0, 0, 0, 0], dtype=torch.int32)
    return SparseTensor(Sites(coords), x.feats[mine]), mine


@pytest.mark.parametrize("args", VARIANTS.values(), ids=VARIANTS)
def test_latents_of_a_clip_do_not_depend_on_the_batch(args: SLatFlow4DModelArgs) -> None:
    net = built(SLatFlow4DModel, args)
    x, t, cond = latents(0)
    together = net(x, t, cond).feats
    for b in range(2):
        alone, mine = clip(x, b)
        assert_close(net(alone, t[b : b + 1], cond[b : b + 1]).feats, together[mine], atol=1e-5, rtol=1e-4)


def test_structure_of_a_clip_does_not_depend_on_the_batch() -> None:
    net = built(SparseStructureFlow4DModel, STRUCTURE)
    x, t, cond = torch.randn(2, 5, 3, 4, 4, 4), 1000 * torch.rand(2, 5), torch.randn(2, 5, 6, 10)
    together = net(x, t, cond)
    for b in range(2):
        assert_close(net(x[b, None], t[b, None], cond[b, None])[0], together[b], atol=1e-5, rtol=1e-4)


def test_gaussians_of_a_clip_do_not_depend_on_the_batch() -> None:
    net = built(SLatGaussianDecoder, DECODER)
    x, _, _ = latents(0)
    for b in range(2):
        alone, mine = clip(x, b)
        assert_close(net(alone), net(x)[mine], atol=1e-5, rtol=1e-4)


def test_order_of_voxels_carries_no_information() -> None:
    net = built(SLatFlow4DModel, LATENT)
    x, t, cond = latents(1)
    shuffle = torch.randperm(len(x.coords))
    again, came_from = sort(x.coords[shuffle], x.feats[shuffle])
    assert_close(net(again, t, cond).feats, net(x, t, cond).feats[shuffle][came_from])


@pytest.mark.parametrize("attn_mode", ["swin", "full"])
def test_one_frame_of_a_clip_equals_3d(attn_mode: str) -> None:
    """With a single frame, attention across frames is attention inside the frame, and its index turns nothing."""
    x, _, _ = latents(2, clips=1, frames=1)
    four = built(SLatGaussianDecoder, replace(DECODER, attn_mode=attn_mode))
    three = built(SLatGaussianDecoder, replace(DECODER, attn_mode=attn_mode, expand_self_attn=False, pe_mode="ape"))
    assert_close(four(x), three(x))

    x, t, cond = torch.randn(1, 1, 3, 4, 4, 4), torch.tensor([[500.0]]), torch.randn(1, 1, 6, 10)
    four = built(SparseStructureFlow4DModel, STRUCTURE)
    three = built(
        SparseStructureFlow4DModel, replace(STRUCTURE, window_size=None, expand_self_attn=False, pe_mode="ape")
    )
    assert_close(four(x, t, cond), three(x, t, cond))


def test_frames_that_attend_to_themselves_alone_are_clips_of_one_frame() -> None:
    # Rotating q and k of one frame alike is no change.
    args = replace(STRUCTURE, window_size=None, expand_self_attn=False)
    net = built(SparseStructureFlow4DModel, replace(args, qk_rms_norm=False))
    x, t, cond = torch.randn(1, 3, 3, 4, 4, 4), 1000 * torch.rand(1, 3), torch.randn(1, 3, 6, 10)
    apart = net(*(value.transpose(0, 1) for value in (x, t, cond))).transpose(0, 1)
    assert_close(net(x, t, cond), apart, atol=1e-5, rtol=1e-4)


def test_windows_hide_far_frames_until_they_shift() -> None:
    """Frames 0, 1 | 2, 3 in even blocks, 0 | 1, 2 | 3 in odd ones: in two blocks frame 3 has reached 1, 2, 3 only."""
    net = built(SparseStructureFlow4DModel, STRUCTURE)
    x, t, cond = torch.randn(1, 4, 3, 4, 4, 4), 1000 * torch.rand(1, 4), torch.randn(1, 4, 6, 10)
    changed = x.clone()
    changed[:, 3] += 1
    moved = (net(changed, t, cond) - net(x, t, cond)).abs().amax((0, 2, 3, 4, 5)) > 1e-4
    assert moved.tolist() == [False, True, True, True]


@pytest.mark.parametrize("args", VARIANTS.values(), ids=VARIANTS)
def test_empty_frames_are_no_obstacle(args: SLatFlow4DModelArgs) -> None:
    net = built(SLatFlow4DModel, args)
    x, t, cond = latents(3)
    # One frame of a clip, two of the other.
    kept = (x.coords[:, 1] == 1) | (x.coords[:, 1] == 0) & (x.coords[:, 0] == 0)
    left = SparseTensor(Sites(x.coords[kept]), x.feats[kept])
    assert net(left, t, cond).feats.isfinite().all()
    none = SparseTensor(Sites(x.coords[:0]), x.feats[:0])
    assert net(none, t, cond).feats.shape == (0, 3)


@pytest.mark.parametrize("use_skip_connection", [True, False])
def test_4d_blocks_halve_space_then_time(use_skip_connection: bool) -> None:
    """One level without transformer, against the plain twins of convolution and pooling."""
    args = replace(
        VARIANTS["4D"],
        num_blocks=0,
        num_io_res_blocks=1,
        num_io_res4d_blocks=1,
        use_skip_connection=use_skip_connection,
    )
    net = built(SLatFlow4DModel, args)
    x, t, cond = latents(4, clips=1)
    time = net.t_embedder(t)
    halved_time = (time[0, 0::2] + time[0, 1::2]) / 2

    def block(layers: Any, coords: Tensor, feats: Tensor, times: Tensor) -> Tensor:
        scale, shift = layers.emb_layers(times)[coords[:, 1].long()].chunk(2, dim=1)
        h = functional.silu(functional.layer_norm(feats, feats.shape[1:], layers.norm1.weight, layers.norm1.bias, 1e-6))
        h = reference.conv(coords, h, layers.conv1.conv.weight, layers.conv1.conv.bias)
        h = functional.silu(functional.layer_norm(h, h.shape[1:], eps=1e-6) * (1 + scale) + shift)
        return reference.conv(coords, h, layers.conv2.conv.weight, layers.conv2.conv.bias) + layers.skip_connection(
            feats
        )

    def parents(coords: Tensor, coarse: Tensor, stride: tuple[int, ...]) -> list[int]:
        rows = {tuple(cell): row for row, cell in enumerate(coarse.tolist())}
        return [rows[tuple(c // s for c, s in zip(cell, (1, *stride), strict=True))] for cell in coords.tolist()]

    space, feats = reference.pool(x.coords, net.input_layer(x.feats), (1, 2, 2, 2))
    inner, feats = reference.pool(space, feats, (2, 1, 1, 1))
    feats = block(net.input_blocks[0], inner, feats, halved_time)
    remembered = feats
    feats = feats + absolute_position(inner[:, 2:], args.model_channels)  # the transformer has no block
    if use_skip_connection:
        feats = torch.cat([feats, remembered], dim=1)
    feats = feats[parents(space, inner, (2, 1, 1, 1))][parents(x.coords, space, (1, 2, 2, 2))]
    feats = block(net.out_blocks[0], x.coords, feats, time[0])
    plain = net.out_layer(functional.layer_norm(feats, feats.shape[1:], eps=1e-5))
    assert_close(net(x, t, cond).feats, plain, atol=1e-5, rtol=1e-4)


def test_shared_modulation_equals_the_same_in_every_block() -> None:
    own = built(SLatFlow4DModel, LATENT)
    shared = SLatFlow4DModel(replace(LATENT, share_mod=True), TORCH_OPS).eval()
    state = own.state_dict()
    for name in ("adaLN_modulation.1.weight", "adaLN_modulation.1.bias"):
        state[name] = state[f"blocks.0.{name}"]
        state[f"blocks.1.{name}"].copy_(state[name])
    own.load_state_dict({name: value for name, value in state.items() if not name.startswith("adaLN")})
    shared.load_state_dict({name: value for name, value in state.items() if ".adaLN" not in name})
    inputs = latents(5)
    with torch.no_grad():
        assert_close(shared(*inputs).feats, own(*inputs).feats)


@pytest.mark.parametrize("args", VARIANTS.values(), ids=VARIANTS)
def test_no_tokens_stand_for_tokens_of_zeros_in_latents(args: SLatFlow4DModelArgs) -> None:
    net = built(SLatFlow4DModel, args)
    x, t, cond = latents(5)
    assert_close(net(x, t, None).feats, net(x, t, torch.zeros_like(cond)).feats, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(net(x, t, None).feats, net(x, t, cond).feats, atol=1e-2)


@pytest.mark.parametrize("cross_head_norm", [False, True])
def test_no_tokens_stand_for_tokens_of_zeros_in_structure(cross_head_norm: bool) -> None:
    net = built(SparseStructureFlow4DModel, replace(STRUCTURE, qk_rms_norm_cross=cross_head_norm))
    x, t, cond = torch.randn(2, FRAMES, 3, 4, 4, 4), 1000 * torch.rand(2, FRAMES), torch.randn(2, FRAMES, 5, 10)
    assert_close(net(x, t, None), net(x, t, torch.zeros_like(cond)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(net(x, t, None), net(x, t, cond), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_half_precision_round_once(dtype: torch.dtype) -> None:
    x = (torch.randn(500, 96) * 3 + 1).to(dtype)
    exact = functional.layer_norm(x.double(), (96,), eps=1e-6)
    assert layer_norm(x).dtype == dtype
    assert_close(layer_norm(x).double(), exact, atol=1e-5, rtol=0.51 * torch.finfo(dtype).eps)


def test_encoder_has_the_decoder_s_torso() -> None:
    decoder = built(SLatGaussianDecoder, DECODER)
    options = {name: getattr(DECODER, name) for name in vars(DECODER) if name != "representation_config"}
    encoder = SLatEncoder(SLatEncoderArgs(**{**options, "in_channels": 3, "latent_channels": 28}), TORCH_OPS)
    encoder.load_state_dict({k: v for k, v in decoder.state_dict().items() if k != "offset_perturbation"})
    x, _, _ = latents(6)
    with torch.no_grad():
        mean, logvar = encoder(x)
    assert_close(torch.cat([mean, logvar], dim=1), decoder(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_torso_alone_changes_precision(dtype: torch.dtype) -> None:
    x, t, cond = latents(7)
    dense = torch.randn(1, 4, 3, 4, 4, 4), 1000 * torch.rand(1, 4), torch.randn(1, 4, 6, 10)
    for net, run in (
        (built(SLatFlow4DModel, LATENT), lambda net: net(x, t, cond).feats),
        (built(SLatFlow4DModel, replace(LATENT, share_mod=True)), lambda net: net(x, t, cond).feats),
        (built(SparseStructureFlow4DModel, STRUCTURE), lambda net: net(*dense)),
        (built(SLatGaussianDecoder, DECODER), lambda net: net(x)),
    ):
        exact = run(net)
        net.set_torso_dtype(dtype)
        rough = run(net)
        assert rough.dtype == torch.float32
        assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()
        kept = [name for name, value in net.named_parameters() if value.dtype == torch.float32]
        assert all("norm" in name or name.startswith(("t_emb", "in", "out_layer", "adaLN")) for name in kept)
        assert {p.dtype for p in net.blocks[0].mlp.parameters()} == {dtype}


def test_gaussians_at_rest_have_the_biases_of_the_configuration() -> None:
    """With all channels 0: opacity and scale are the biases, and centers spread out over their cell."""
    net = built(SLatGaussianDecoder, DECODER)
    coords = torch.tensor([[0, 0, 1, 2, 3], [0, 0, 7, 0, 0]], dtype=torch.int32)
    gaussians = net.activate(net.split(torch.zeros(2, 56), coords))
    assert_close(gaussians.opacities, torch.full((8, 1), 0.1))
    assert_close(gaussians.scales, torch.full((8, 3), (0.004**2 + 0.0009**2) ** 0.5))
    assert_close(gaussians.quats, torch.tensor([[1.0, 0, 0, 0]]).expand(8, 4))
    assert_close(gaussians.colors, torch.full((8, 3), 0.5))
    # Hammersley's points: (i / 4, i mirrored in base 2, i mirrored in base 3).
    points = torch.tensor([[0, 0, 0], [1 / 4, 1 / 2, 1 / 3], [1 / 2, 1 / 4, 2 / 3], [3 / 4, 3 / 4, 1 / 9]])
    cells = torch.tensor([[1.0, 2, 3], [7, 0, 0]])
    assert_close(gaussians.means, ((cells[:, None] + points) / 8 - 0.5).flatten(0, 1))


def test_gradients_reach_every_weight() -> None:
    x, t, cond = latents(8)
    for args in VARIANTS.values():
        net = built(SLatFlow4DModel, args).requires_grad_(True)
        net(x, t, cond).feats.square().sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("kind", "args", "changes", "option"),
    [
        (SparseStructureFlow4DModel, STRUCTURE, {"pe_mode": "rope"}, "pe_mode"),
        (SparseStructureFlow4DModel, STRUCTURE, {"expand_self_attn": False}, "window_size"),
        (SparseStructureFlow4DModel, STRUCTURE, {"patch_size": 3}, "patch_size"),
        (SparseStructureFlow4DModel, STRUCTURE, {"num_heads": 5}, "num_heads"),
        (SparseStructureFlow4DModel, STRUCTURE, {"num_heads": 24}, "num_heads"),
        (SparseStructureFlow4DModel, STRUCTURE, {"window_size": 0}, "window_size"),
        (SLatFlow4DModel, LATENT, {"conv_type": "5D"}, "conv_type"),
        (SLatFlow4DModel, LATENT, {"patch_size": 4}, "patch_size"),
        (SLatFlow4DModel, LATENT, {"num_io_res4d_blocks": 3}, "num_io_res4d_blocks"),
        (SLatFlow4DModel, LATENT, {"io_block_channels_t": (12,)}, "io_block_channels_t"),
        (SLatFlow4DModel, LATENT, {"conv_type": "4D"}, "io_block_channels_t"),
        (SLatGaussianDecoder, DECODER, {"attn_mode": "shift_order"}, "attn_mode"),
        (SLatGaussianDecoder, DECODER, {"representation_config": {**REPRESENTATION, "gamma": 1}}, "gamma"),
        (SLatGaussianDecoder, DECODER, {"representation_config": {**REPRESENTATION, "lr": {"_xyz": 1.0}}}, "_rotation"),
        (
            SLatGaussianDecoder,
            DECODER,
            {"representation_config": {**REPRESENTATION, "scaling_activation": "exp"}},
            "scaling_activation",
        ),
        (
            SLatGaussianDecoder,
            DECODER,
            {"representation_config": {**REPRESENTATION, "opacity_bias": 1.5}},
            "opacity_bias",
        ),
        (SLatGaussianDecoder, DECODER, {"representation_config": {**REPRESENTATION, "voxel_size": "1"}}, "voxel_size"),
    ],
)
def test_options_that_cannot_be_honored_are_named(
    kind: Callable[..., nn.Module], args: Any, changes: dict[str, Any], option: str
) -> None:
    with pytest.raises(ModelError, match=option):
        kind(replace(args, **changes), TORCH_OPS)


def test_inputs_that_do_not_fit_are_refused() -> None:
    x, t, cond = latents(9)
    latent = built(SLatFlow4DModel, LATENT)
    assert latent.frame_multiple == 2
    with pytest.raises(InputError, match="3 frames do not divide by 2"):
        latent(x, t[:, :3], cond[:, :3])
    with pytest.raises(InputError, match="frame 3"):
        latent(x, t[:, :2], cond[:, :2])
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        latent(x.replace(x.feats[:, :2]), t, cond)
    with pytest.raises(InputError, match="3, 4, 4, 4"):
        built(SparseStructureFlow4DModel, STRUCTURE)(torch.zeros(1, 2, 3, 8, 8, 8), t[:1, :2], cond[:1, :2])
