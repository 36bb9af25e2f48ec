"""A function in a forked process: with what has been imported, and without what it may break."""

import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

DEFECT = 70  # the exit code of a function that raises


def forked(run: Callable[[], int], output: Path, seconds: float) -> tuple[int, resource.struct_rusage]:
    """Runs a function in a forked process, with its output in a file.

    Args:
        run: gives the exit code.
        output: replaced.
        seconds: until the process is killed.

    Returns:
        The exit code, or minus the signal that ended it, and what it used.
    """
    pid = os.fork()
    if pid == 0:
        _leave(run, output)
    ends, pause = monotonic() + seconds, 0.0005
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage
        if monotonic() > ends:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return os.waitstatus_to_exitcode(status), usage
        sleep(pause)
        pause = min(pause * 1.5, 0.02)


def _leave(run: Callable[[], int], output: Path) -> NoReturn:
    """What the forked process does: all of it, whatever happens, and no more."""
    code = DEFECT
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), "utf-8", "backslashreplace", write_through=True)
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
