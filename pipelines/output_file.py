"""A file that the user names for what a command writes."""

import os
from pathlib import Path

from ss4d.pipelines.errors import ConfigError


def check_output_file(path: Path) -> None:
    """Raises ConfigError where no file can be written: a pipe would wait for ever, and a device would be replaced.

    To be called before anything is computed. A link counts as what it leads to.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path} is there already, and no file: give another")
