"""The errors the store raises; errors of the operating system pass through as they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from obstore.exceptions import BaseError as ObjectError
from obstore.exceptions import GenericError


class StoreError(RuntimeError):
    """An artifact or a store cannot be used or named; the sentence says which one, why, and what to do."""


class DamageError(StoreError):
    """Something is not as it was written, or was never written to the end; to be made again.

    Attributes:
        reason: the sentence without the remedy, for callers that know a better one.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason


class UnreachableError(StoreError):
    """The store did not answer as it should; it may do so later."""


class NewerError(StoreError):
    """A newer version of this program wrote it: not to be touched."""


@contextmanager
def reached(location: str) -> Iterator[None]:
    """Turns the errors of object stores and archives into sentences; what is not found stays FileNotFoundError."""
    try:
        yield
    except ObjectError as error:
        reason = str(error).strip().splitlines()[0]
        # GenericError covers failures of the network and the server; refusals have classes of their own.
        kind = UnreachableError if isinstance(error, GenericError) else StoreError
        raise kind(
            f"the store {location} cannot be used: {reason}; check its address, the credentials in the environment "
            "and the network"
        ) from error
    except BadZipFile as error:
        raise DamageError(f"the archive {location} has a damaged entry: {error}") from error
