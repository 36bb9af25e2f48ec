"""Whether viser is there, which `ss4d view --live` needs and which does not come with the program."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import Deferred
from ss4d.stages.extras import how_to_install

if TYPE_CHECKING:
    from ss4d.pipelines.view.live import LiveView

_live_view = Deferred("ss4d.pipelines.view.live:LiveView")


def live_view(run: Path, store: str | None, port: int, told: Callable[[str], None]) -> "LiveView":
    """A `LiveView`; raises as that does.

    Raises:
        ConfigError: viser is not installed.
    """
    if find_spec("viser") is None:
        raise ConfigError(f"--live needs the package viser: {how_to_install('viewer')}, or leave --live out")
    shown: LiveView = _live_view(run, store, port, told)
    return shown
