"""Check the options published beside weights; an option that cannot be honored is an error that names it."""

from collections.abc import Sequence
from typing import Any

from ss4d.stages.errors import ModelError


def one_of(option: str, value: object, supported: Sequence[object]) -> None:
    """Refuses a value that is not supported.

    Raises:
        ModelError: naming the option, its value and the supported ones.
    """
    if value not in supported:
        raise ModelError(f"option {option} is {value!r}, but only {', '.join(map(repr, supported))} can be used")


def at_least_one(args: Any, *options: str) -> None:
    """Refuses counts and sizes under 1, alone or in a tuple; None passes.

    Raises:
        ModelError: naming the option and its value.
    """
    for option in options:
        value = getattr(args, option)
        if any(number < 1 for number in (value if isinstance(value, tuple) else (value,)) if number is not None):
            raise ModelError(f"option {option} is {value!r}, but must be at least 1")


def head_count(channels: int, num_heads: int | None, num_head_channels: int | None) -> int:
    """The number of attention heads: as given, or as many as have `num_head_channels` each.

    Raises:
        ModelError: if neither is given, or the channels do not divide into heads of even width, which rotary phases
            need.
    """
    if num_heads is None and num_head_channels is None:
        raise ModelError("options num_heads and num_head_channels are both null: one of them must be a number")
    heads = num_heads if num_heads is not None else channels // (num_head_channels or 1)
    if heads < 1 or channels % (2 * heads):
        raise ModelError(
            f"model_channels {channels} does not divide into {heads} heads of even width; "
            f"change num_heads or num_head_channels"
        )
    return heads
