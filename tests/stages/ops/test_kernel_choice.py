"""Which kernels a device is given, and what is said of those that are not there, broken or wrong.

Packages are stood in for by small ones of the same names, on a CPU that is offered what a GPU is.
"""

import re
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import torch

from ss4d.stages.errors import ModelError
from ss4d.stages.ops import kernel_choice
from ss4d.stages.ops.attention import attention
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.cuda import PACKAGES
from ss4d.stages.ops.kernel_choice import (
    ANY,
    DRAWS,
    EVERYTHING_AUTO,
    KERNELS,
    OF_NETWORKS,
    ORDER,
    PARTS,
    Choice,
    Use,
    choose_kernels,
    draw_on,
)
from ss4d.stages.ops.kernel_names import (
    AUTO,
    AttentionKernel,
    ConvolutionKernel,
    Part,
    RasterizerKernel,
    TriangleKernel,
)
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.ops.splat_loops import draw_in_loops
from ss4d.stages.ops.splat_sorted import draw_sorted
from tests.helpers.pretend_device import PRETENDED, PretendDevice

CPU = torch.device("cpu")
IN_HALF = Use(device=CPU, dtypes=frozenset({torch.float16}))

FLASH = """
import torch
from torch.nn.functional import scaled_dot_product_attention


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
    bounds = zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:])
    parts = [(q[a:b], k[c:d], v[c:d]) for a, b, c, d in bounds]
    outs = [scaled_dot_product_attention(*(x.transpose(0, 1) for x in part), scale={scale}) for part in parts]
    return torch.cat([out.transpose(0, 1) for out in outs]){more}
"""
XFORMERS = """
import torch
from torch.nn.functional import scaled_dot_product_attention


class BlockDiagonalMask:
    def from_seqlens(queries, keys, *, device):
        return torch.block_diag(*(torch.ones(q, k) for q, k in zip(queries, keys))).bool().to(device)


class attn_bias:
    BlockDiagonalMask = BlockDiagonalMask


def memory_efficient_attention(q, k, v, attn_bias):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=attn_bias).transpose(1, 2)
"""
GSPLAT = "def rasterization(**_):\n    raise AttributeError('CameraModelType')"


class Packages(MetaPathFinder):
    """The packages that kernels need, none of which is there but those that a test installs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._gone = folder, set(PACKAGES)

    def find_spec(self, name: str, *_: object) -> None:
        if name in self._gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def install(self, name: str, text: str) -> None:
        *packages, module = name.split(".")
        self._gone.discard(name.split(".")[0])
        folder = self._folder
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()  # without it, one that is truly installed comes before it
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    """A CPU that is offered what a GPU is, but for torch's varlen, which computes on GPUs alone."""
    for part in PARTS:
        rows = [row for row in ORDER[part]["cuda"] if row != ["varlen"]]
        monkeypatch.setitem(ORDER[part], "cpu", rows)  # type: ignore[arg-type]  # nothing else changes it
    monkeypatch.setattr(kernel_choice, "picture_seconds", lambda _: 1.0)
    monkeypatch.syspath_prepend(tmp_path)
    made = Packages(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    known = _take_out_packages()
    yield made
    _take_out_packages()
    sys.modules.update(known)


def _take_out_packages() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}


def choice(part: Part, word: str = AUTO, *, use: Use = IN_HALF) -> Choice:
    return choose_kernels(use, {**EVERYTHING_AUTO, part: word}, (part,)).choices[part]


def test_a_cpu_computes_with_torch_and_numba() -> None:
    chosen = choose_kernels(Use(device=CPU, dtypes=ANY))
    assert chosen.ops == TORCH_OPS
    assert chosen.rasterize is rasterize
    assert chosen.said() == "kernels: attention torch; convolution torch; rasterizer numba; triangles numba"


def test_every_device_has_its_way_to_blend() -> None:
    assert {device for row in ORDER.values() for device in row} == set(DRAWS)
    assert draw_on(CPU) is draw_in_loops
    assert draw_on(PRETENDED) is draw_sorted


def test_training_on_a_cpu_draws_with_what_has_gradients() -> None:
    chosen = choose_kernels(Use(device=CPU, dtypes=ANY, gradients=True), parts=(*OF_NETWORKS, "rasterizer"))
    assert chosen.said() == "kernels: attention torch; convolution torch; rasterizer torch (numba has no gradients)"


def test_the_words_of_a_configuration_are_those_of_the_table() -> None:
    words = {
        "attention": AttentionKernel,
        "convolution": ConvolutionKernel,
        "rasterizer": RasterizerKernel,
        "triangles": TriangleKernel,
    }
    for part in PARTS:
        assert set(get_args(words[part])) == {AUTO, *KERNELS[part]}
        assert {name for row in ORDER[part]["cuda"] for name in row} == KERNELS[part].keys()
        assert part == "rasterizer" or all(len(row) == 1 for row in ORDER[part]["cuda"])  # only its time is measured


@pytest.mark.parametrize("more", ["", ", None"], ids=["the result", "the result and sums"])
def test_a_package_that_works_is_taken(packages: Packages, more: str) -> None:
    packages.install("flash_attn_interface", FLASH.format(scale=None, more=more))
    assert choice("attention") == Choice(kernel="flash3", asked_for=False, passed_over={})
    assert choice("attention", "flash3").asked_for
    training = Use(device=CPU, dtypes=ANY, gradients=True)
    assert choice("attention", use=training).kernel == "flash3"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is not installed"),
        ("raise RuntimeError('libcudart.so.99')", "cannot be imported: RuntimeError: libcudart.so.99"),
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError: .*nothing_of_that_name"),
        ("def flash_attn_varlen_func(*_):\n    raise RuntimeError('no image\\nfor it')", "RuntimeError: no image$"),
        (FLASH.format(scale=0.1, more=""), "gives wrong results .float16: off by"),
    ],
    ids=["absent", "broken", "lacking", "failing", "wrong"],
)
def test_one_that_does_not_is_passed_over_with_a_word_or_refused(
    packages: Packages, text: str | None, reason: str
) -> None:
    if text is not None:
        packages.install("flash_attn_interface", text)
    chosen = choose_kernels(IN_HALF)
    assert chosen.ops.attention is attention
    why = chosen.choices["attention"].passed_over["flash3"]
    assert re.search(reason, why)
    assert f"flash3 {why}" in chosen.said()
    with pytest.raises(ModelError, match=r"kernels\.attention: flash3 .*; auto takes the best that works"):
        choice("attention", "flash3")


def test_the_next_one_is_taken_for_numbers_that_the_first_is_not_for(packages: Packages) -> None:
    packages.install("flash_attn_interface", FLASH.format(scale=None, more=""))
    packages.install("xformers.ops.fmha", XFORMERS)
    found = choice("attention", use=Use(device=CPU, dtypes=frozenset({torch.float32})))
    assert found.kernel == "xformers"
    assert found.passed_over == {"flash3": "is for bfloat16 and float16, and networks compute in float32"}


def test_gsplat_without_its_kernels_is_found_at_the_start(packages: Packages) -> None:
    packages.install("gsplat.__init__", GSPLAT)
    packages.install("gsplat.cuda._backend", "_C = None")
    with pytest.raises(ModelError, match=r"kernels\.rasterizer: gsplat has no kernels: .* nvcc"):
        choice("rasterizer", "gsplat")
    packages.install("gsplat.cuda._backend", "_C = {}")
    _take_out_packages()
    with pytest.raises(ModelError, match="gsplat fails when it is tried: AttributeError: CameraModelType"):
        choice("rasterizer", "gsplat")


def test_of_two_rasterizers_the_faster_one_is_taken(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {rasterize: 0.03}
    monkeypatch.setattr(kernel_choice, "picture_seconds", lambda draw: seconds.get(draw, 0.25))
    found = choice("rasterizer")
    assert found.kernel == "numba"
    assert found.passed_over["torch"] == "is slower (250 ms a picture, numba 30 ms)"
    seconds[rasterize] = 0.5
    assert choice("rasterizer").kernel == "torch"


def test_what_has_no_gradients_does_not_train(packages: Packages) -> None:
    packages.install("spconv.pytorch", "")
    found = choice("convolution", use=Use(device=CPU, dtypes=ANY, gradients=True))
    assert found == Choice(kernel="torch", asked_for=False, passed_over={"spconv": "has no gradients"})


def test_torch_alone_is_enough_on_a_gpu(packages: Packages) -> None:
    """On one that is not there, for which torch's varlen has no kernel either."""
    with torch.no_grad(), PretendDevice(values=True):
        chosen = choose_kernels(Use(device=PRETENDED, dtypes=frozenset({torch.float16, torch.float32})))
    named = {part: found.kernel for part, found in chosen.choices.items()}
    assert named == {"attention": "torch", "convolution": "torch", "rasterizer": "torch", "triangles": "numba"}
    assert list(chosen.choices["attention"].passed_over) == ["flash3", "varlen", "xformers"]
    assert chosen.choices["convolution"].passed_over == {"spconv": "is not installed"}
    assert chosen.choices["rasterizer"].passed_over["gsplat"] == "is not installed"


def test_a_kernel_for_another_device_is_refused() -> None:
    with pytest.raises(ModelError, match=r"kernels\.convolution: spconv is not for cpu; choose auto, torch"):
        choice("convolution", "spconv")
