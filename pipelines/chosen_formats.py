"""The formats of an asset that a user names; known before anything is imported that computes."""

from collections.abc import Sequence

from ss4d.pipelines.errors import ConfigError
from ss4d.stages.export.config import FORMAT_NAMES, FormatName


def chosen_formats(words: Sequence[str]) -> tuple[FormatName, ...]:
    """The formats that a user names, each word one or several with commas between.

    Raises:
        ConfigError: there is no such format, or none is named.
    """
    named = list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    if unknown := [name for name in named if name not in FORMAT_NAMES]:
        raise ConfigError(f"--formats: there is no format {unknown[0]!r}; choose from {', '.join(FORMAT_NAMES)}")
    if not named:
        raise ConfigError(f"--formats names none; choose from {', '.join(FORMAT_NAMES)}")
    return tuple(name for name in FORMAT_NAMES if name in named)
