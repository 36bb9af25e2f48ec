"""The image encoder against an independent library on random weights, in both published layouts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.image_encoders import (
    DINOV2_VITL14_REG,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VisionTransformer,
    VisionTransformerArgs,
)
from ss4d.stages.weights import dinov2_from_hub

SMALL = VisionTransformerArgs(
    image_size=42, patch_size=14, model_channels=24, num_blocks=3, num_heads=3, num_registers=4
)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with every parameter random, so that none is inert."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


@pytest.mark.filterwarnings("ignore")
def test_tokens_are_those_of_an_independent_library_in_both_layouts(tmp_path: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    reference = randomised(
        Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(
                hidden_size=24, num_hidden_layers=3, num_attention_heads=3, mlp_ratio=4, image_size=42, patch_size=14
            )
        )
    )
    reference.save_pretrained(tmp_path)  # writes the names that the hub publishes
    state = load_file(tmp_path / "model.safetensors")
    assert "encoder.layer.0.attention.attention.query.weight" in state

    encoder = VisionTransformer(SMALL)
    own = {name: torch.cat([state[part] for part in parts]) for name, parts in dinov2_from_hub(state).items()}
    encoder.load_state_dict(own, strict=True)
    images = torch.rand(2, 3, 42, 42)
    pixels = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.inference_mode():
        hidden = reference(pixels, output_hidden_states=True).hidden_states[-1]
        expected, tokens = functional.layer_norm(hidden, (24,)), encoder(images)
    assert tokens.shape == (2, 1 + 4 + 9, 24)
    torch.testing.assert_close(tokens, expected, atol=2e-5, rtol=0)

    native = VisionTransformer(SMALL)  # DINOv2's own names are the module's: no table is needed
    native.load_state_dict(encoder.state_dict(), strict=True)
    assert torch.equal(native.eval()(images), encoder(images))


def test_the_full_size_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = VisionTransformer(DINOV2_VITL14_REG).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    c = 1024
    block = {
        **{f"{norm}.{kind}": (c,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        "attn.qkv.weight": (3 * c, c),
        "attn.qkv.bias": (3 * c,),
        "attn.proj.weight": (c, c),
        "attn.proj.bias": (c,),
        "mlp.fc1.weight": (4 * c, c),
        "mlp.fc1.bias": (4 * c,),
        "mlp.fc2.weight": (c, 4 * c),
        "mlp.fc2.bias": (c,),
        "ls1.gamma": (c,),
        "ls2.gamma": (c,),
    }
    assert shapes == {
        "cls_token": (1, 1, c),
        "pos_embed": (1, 1370, c),
        "register_tokens": (1, 4, c),
        "mask_token": (1, c),
        "patch_embed.proj.weight": (c, 3, 14, 14),
        "patch_embed.proj.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
        **{f"blocks.{i}.{name}": shape for i in range(24) for name, shape in block.items()},
    }
    assert len(shapes) == 344


def test_images_are_encoded_alone() -> None:
    encoder, images = randomised(VisionTransformer(SMALL)), torch.rand(3, 3, 42, 42)
    together = encoder(images)
    for i in range(3):
        torch.testing.assert_close(encoder(images[i : i + 1])[0], together[i], atol=1e-5, rtol=0)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"42 x 42.*56"):
        VisionTransformer(SMALL)(torch.zeros(1, 3, 56, 56))


def test_a_patch_size_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ModelError, match=r"image_size 40.*patch_size 14"):
        VisionTransformer(
            VisionTransformerArgs(image_size=40, patch_size=14, model_channels=24, num_blocks=1, num_heads=3)
        )


def test_blocks_in_half_precision_stay_close() -> None:
    encoder, images = randomised(VisionTransformer(SMALL)), torch.rand(1, 3, 42, 42)
    full = encoder(images)
    encoder.set_torso_dtype(torch.bfloat16)
    half = encoder(images)
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().mean() < 0.05
