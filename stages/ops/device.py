"""Which device a user's word means on this machine."""

from typing import Literal

from ss4d.stages.errors import InputError

Device = Literal["cpu", "cuda"]
WORDS = ("auto", "cpu", "cuda")


def check_word(word: str) -> None:
    """Raises InputError for a word that names no device."""
    if word not in WORDS:
        raise InputError(f"--device must be {', '.join(WORDS[:-1])} or {WORDS[-1]}; got {word!r}")


def check_device(word: str) -> None:
    """Refuses what `resolve_device` would refuse; needs torch for "cuda" alone.

    Raises:
        InputError: for another word, or for "cuda" where there is none.
    """
    check_word(word)
    if word == "cuda" and not finds_cuda():
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu, or install torch for CUDA")


def resolve_device(word: str) -> Device:
    """The device that "auto", "cpu" or "cuda" means on this machine.

    Raises:
        InputError: for another word, or for "cuda" where there is none.
    """
    check_device(word)
    return meant_device(word)


def meant_device(word: str) -> Device:
    """The device that a word means, whether or not this machine has it."""
    return "cuda" if word == "cuda" or (word == "auto" and finds_cuda()) else "cpu"


def finds_cuda() -> bool:
    """Whether torch can compute on CUDA here."""
    import torch  # a second or more, which a plan and "cpu" need not wait for

    return torch.cuda.is_available()
