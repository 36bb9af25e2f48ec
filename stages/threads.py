"""Threads that compute side by side, each alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Barrier

import torch


@contextmanager
def side_by_side(most: int) -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch may use here, `most` at most, in each of which torch uses that one only.

    Small networks are faster so than if all threads shared one call, in which they wait for one another, and rounding
    does not depend on how many there are.
    """
    allowed = torch.get_num_threads()
    count = min(allowed, most)
    begun = Barrier(count)
    with ThreadPoolExecutor(count, initializer=_alone) as pool:
        wait([pool.submit(begun.wait) for _ in range(count)])  # all have begun
        torch.set_num_threads(allowed)  # theirs stay at one: the number is each thread's own, and that of later threads
        yield pool


def _alone() -> None:
    torch.get_num_threads()  # a thread takes the common number when it is first asked for, and would do so later
    torch.set_num_threads(1)
