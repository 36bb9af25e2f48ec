"""Says that loops are being compiled, which takes seconds, once on a machine for each version of the program."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from numba.core.event import Event, Listener, install_listener

LOG = logging.getLogger("ss4d")


class _Sayer(Listener):
    """Logs the first compilation; what is cached already is not compiled."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Event) -> None:  # noqa: ARG002  numba's interface
        if not self._said:
            self._said = True
            LOG.info("compiling loops for this machine, once: some seconds")

    def on_end(self, event: Event) -> None:
        """Nothing is said of the end."""


@contextmanager
def compilation_said() -> Iterator[None]:
    """Logs it when something is compiled in here."""
    with install_listener("numba:compile", _Sayer()):
        yield
