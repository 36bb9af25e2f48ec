"""How every command ends when something goes wrong: one sentence on the error stream, and an exit code."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.markup import escape

from ss4d.cli.console import console, plain
from ss4d.cli.exits import DEFECT, FAILED, INTERRUPTED, TERMINATED
from ss4d.cli.streams import OutputError


@contextmanager
def explained(debug: bool, interrupted: str, folder: str = "--out") -> Iterator[None]:
    """Turns whatever ends a command early into a sentence and an exit code; sends the program's log to the console.

    Args:
        debug: show the traceback and the log's details, too.
        interrupted: what becomes of the work after Ctrl-C, to follow "interrupted; ".
        folder: the argument that says where the command writes.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not where nohup lets a command outlive its terminal
        signal.signal(signal.SIGHUP, _terminate)
    handler = _log_to_console(debug)
    try:
        yield
    except (typer.Exit, OutputError):
        raise
    except SystemExit as error:
        if error.code != TERMINATED:
            raise
        _leave(TERMINATED, f"terminated; {interrupted}", debug)
    except KeyboardInterrupt:
        _leave(INTERRUPTED, f"interrupted; {interrupted}", debug)
    except Exception as error:
        # Not at the top: --help need not wait for what the errors of stages and stores import.
        from ss4d.pipelines.errors import explain

        if sentence := explain(error, folder):
            _leave(FAILED, sentence, debug)
        _leave(
            DEFECT,
            f"a defect of this program, not of your input: {type(error).__name__}: {error} (--debug shows where)",
            debug,
        )
    finally:
        logging.getLogger("ss4d").removeHandler(handler)


def _leave(code: int, sentence: str, debug: bool) -> NoReturn:
    if debug:
        console.print_exception()
    console.print(f"[bold red]ss4d:[/] {escape(sentence)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)


def _terminate(*_: object) -> NoReturn:
    """SIGTERM and SIGHUP end a command the way Ctrl-C does: temporary folders are removed, helping processes ended."""
    raise SystemExit(TERMINATED)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def _log_to_console(debug: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("      %(message)s"))
    logger = logging.getLogger("ss4d")
    logger.addHandler(handler)
    logger.propagate = False  # Prefect would print the line again
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    return handler
