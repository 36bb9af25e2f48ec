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


def head_count(channels: int, num_heads: int | None, num_head_channels: int) -> int:
    """The number of attention heads: as given, or as many as have `num_head_channels` each.

    Raises:
        ModelError: if the channels do not divide into heads of even width, which rotary phases need.
    """
    heads = channels // num_head_channels if num_heads is None else num_heads
    if heads < 1 or channels % (2 * heads):
        raise ModelError(
            f"model_channels {channels} does not divide into {heads} heads of even width; "
            f"change num_heads or num_head_channels"
        )
    return heads
