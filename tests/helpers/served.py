"""What a process that forks others imports beforehand, once for all of them."""

import gc
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from PIL import Image
from typer.main import get_command

from ss4d.pipelines.registry import installed
from tests.helpers.noop_stages import install

LATE = (  # what commands import when they need it
    *(
        f"ss4d.pipelines.dataset.{name}"
        for name in ("catalog", "export", "failures", "launch", "rebuild", "references")
    ),
    "ss4d.pipelines.dataset.report.report",
    *(f"ss4d.pipelines.inspect.{name}" for name in ("report", "diff", "rerun")),
    *(f"ss4d.pipelines.{name}" for name in ("run", "compilation", "store.housekeeping")),
    *("ss4d.cli.main", "tests.helpers.warmed"),
    *("av.subtitles.stream", "multiprocessing.synchronize", "pandas", "pyarrow.dataset", "rich._emoji_codes"),
)


@cache
def command() -> Callable[[list[str]], object]:
    """`ss4d` itself, whose options take long to gather."""
    from ss4d.cli.main import app

    return get_command(app)


def load(site: Path) -> None:
    """Imports what commands need, and leaves no thread that a fork would lose.

    Args:
        site: a new folder, in which stages are installed that compute nothing.
    """
    for name in LATE:
        import_module(name)
    install(site)
    sys.path.insert(0, str(site))
    installed.cache_clear()
    installed()
    torch.set_num_threads(1)
    command()
    Image.init()
    gc.collect()
    gc.freeze()  # what is never freed is never written to, and so stays shared
