"""Where the installed command starts and ends: ready for Ctrl-C before anything slow is imported, gone once done."""

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn

from ss4d.cli.exits import FAILED, INTERRUPTED
from ss4d.cli.home import provide_home
from ss4d.cli.streams import OutputError, open_streams


def main() -> None:
    """Runs the `ss4d` command, and ends the process."""
    signal.signal(signal.SIGINT, _interrupted_early)
    open_streams()
    provide_home()
    # Threads that wait for work sleep: spinning ones take the processor from every other process on a busy machine.
    # Read when torch is imported, so it cannot be set later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ss4d.cli.main import app

    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        _end(ended.code or 0)
    except OutputError as error:
        _end(_unwritten(error))


def _end(code: int) -> NoReturn:
    """Ends the process as Python does, but leaves its memory to the system: to free torch's takes half a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python's own forked processes do
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OutputError as error:
        code = code or _unwritten(error)
    sys.stderr.flush()
    os._exit(code)


def _unwritten(error: OutputError) -> int:
    """The exit code where what was printed reached nobody; says so, unless nobody wanted to read on."""
    if not error.unread:
        sys.stderr.write(f"ss4d: {error}\n")
    return FAILED


def _interrupted_early(*_: object) -> NoReturn:
    """Nothing has begun, so nothing is to be tidied up; an import half done must not turn this into another error."""
    sys.stderr.write("ss4d: interrupted before anything began\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
