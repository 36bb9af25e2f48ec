"""Which kernels a device is given, and what is said where the fast ones do not work."""

import pytest

from ss4d.stages.errors import ModelError
from ss4d.stages.ops import kernel_choice
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.kernel_choice import run_ops, training_ops


def test_a_cpu_computes_with_torch_without_a_word() -> None:
    told: list[str] = []
    assert run_ops("cpu") is TORCH_OPS
    assert training_ops("cpu", told.append) is TORCH_OPS
    assert told == []


def test_training_falls_back_to_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ModelError("it is off by 3")

    monkeypatch.setitem(kernel_choice.BACKENDS, "varlen", broken)
    told: list[str] = []
    assert training_ops("cuda", told.append) is TORCH_OPS
    assert len(told) == 1
    assert "it is off by 3" in told[0]


def test_a_run_never_falls_back_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise ModelError("the package spconv is not installed")

    monkeypatch.setitem(kernel_choice.BACKENDS, "packages", missing)
    with pytest.raises(ModelError, match="spconv"):
        run_ops("cuda")
