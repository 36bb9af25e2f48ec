"""Checks of options that several commands take; each names the option, the value given and what is allowed."""

import math

from ss4d.pipelines.errors import ConfigError


def check_at_least(option: str, number: int, least: int) -> None:
    """Refuses a number that is too small.

    Raises:
        ConfigError: naming the option.
    """
    if number < least:
        raise ConfigError(f"{option} must be at least {least}; got {number}")


def check_seconds(option: str, seconds: float) -> None:
    """Refuses what is not a time to wait.

    Raises:
        ConfigError: naming the option.
    """
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{option} must be a number of seconds above 0; got {seconds:g}")
