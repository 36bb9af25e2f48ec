"""Trials of kernels: on a device that is not there as on the CPU, and what they say of kernels that are wrong."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ss4d.stages.golden_cases import run_case
from ss4d.stages.ops.attention import Attention, AttentionPlan, attention
from ss4d.stages.ops.conv import conv
from ss4d.stages.ops.kernel_choice import draw_on
from ss4d.stages.ops.probes import (
    PICTURE_TOLERANCE,
    TOLERANCES,
    attention_error,
    convolution_error,
    picture_error,
)
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.ops.rasterize_torch import torch_rasterizer
from ss4d.stages.ops.varlen import HALF, in_one_call
from tests.helpers.places import ROOT
from tests.helpers.pretend_device import PRETENDED, PretendDevice
from tests.stages.ops.test_varlen import Slow

CPU = torch.device("cpu")


def packed() -> Attention:
    """Attention in one call, as packages for GPUs have it."""
    slow = Slow()
    return in_one_call(lambda q, k, v, g: slow(q, k, v, g.query_starts, g.key_starts, 300, 300), HALF, least=1)


@pytest.mark.parametrize("make", [lambda: attention, packed], ids=["torch", "packed"])
def test_attention_on_a_device_that_is_not_there(make: Callable[[], Attention]) -> None:
    with PretendDevice(values=True):
        error = attention_error(make(), PRETENDED, torch.float16, gradients=False)
    assert 0 < error < TOLERANCES[torch.float16] / 2


def test_convolution_and_pictures_on_a_device_that_is_not_there() -> None:
    with PretendDevice(values=True):
        assert 0 < convolution_error(conv, PRETENDED, torch.float32, gradients=False) < 1e-5
        assert 0 < picture_error(torch_rasterizer(PRETENDED, draw_on(PRETENDED))) < 1e-5


@pytest.mark.parametrize("name", ["slat_decoder_gs", "slat_flow_3d_1d", "ss_decoder", "ss_flow_windowed"])
def test_golden_numbers_on_a_device_that_is_not_there(name: str) -> None:
    with PretendDevice(values=True):
        outputs = run_case(ROOT / "pipelines" / "doctor" / "golden" / name, device=PRETENDED)
    assert outputs
    assert [output for output in outputs if not output.ok] == []


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("gradients", [False, True], ids=["values", "gradients"])
def test_rounding_is_far_from_the_limit(dtype: torch.dtype, gradients: bool) -> None:
    assert attention_error(attention, CPU, dtype, gradients=gradients) < TOLERANCES[dtype] / 3
    assert convolution_error(conv, CPU, dtype, gradients=gradients) < TOLERANCES[dtype] / 3


def unscaled(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    return attention(1.2 * q, k, v, plan)


def one_row_off(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    out = attention(q, k, v, plan).clone()
    out[3] = out[4]
    return out


def not_a_number(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    return attention(q, k, v, plan) * torch.tensor(math.nan, dtype=q.dtype)


def without_gradients_of_keys(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    return attention(q, k.detach() + 0 * k, v, plan)


@pytest.mark.parametrize("wrong", [unscaled, one_row_off, not_a_number, without_gradients_of_keys])
def test_a_wrong_attention_is_beyond_the_limit(wrong: Attention) -> None:
    assert not attention_error(wrong, CPU, torch.bfloat16, gradients=True) <= TOLERANCES[torch.bfloat16]


def test_a_wrong_picture_is_beyond_the_limit() -> None:
    assert picture_error(rasterize) < 1e-5
    flipped = picture_error(lambda *args, **kwargs: tuple(x.flip(1) for x in rasterize(*args, **kwargs)))  # type: ignore[arg-type, return-value]
    assert flipped > PICTURE_TOLERANCE
