"""Where the installed command starts: ready for Ctrl-C before anything slow is imported."""

import os
import signal
import sys
from typing import NoReturn

from ss4d.cli.exits import INTERRUPTED


def main() -> None:
    """Runs the `ss4d` command."""
    signal.signal(signal.SIGINT, _interrupted_early)
    # Threads that wait for work sleep: spinning ones take the processor from every other process on a busy machine.
    # Read when torch is imported, so it cannot be set later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ss4d.cli.main import app

    app()


def _interrupted_early(*_: object) -> NoReturn:
    """Nothing has begun, so nothing is to be tidied up; an import half done must not turn this into another error."""
    sys.stderr.write("ss4d: interrupted before anything began\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
