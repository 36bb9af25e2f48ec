"""How this package compiles its loops and shares them out over threads; it owns no data and no axes.

numba's own parallel loops are not used: its default thread pool aborts the process when two threads enter it at once.
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import torch

from ss4d.stages.types import Progress, silent

T = TypeVar("T")


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles at the first call, to run without the interpreter's lock; caches the code where that can be written."""
    try:
        compiled = numba.njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError as error:  # neither the package's folder nor the home can be written
        logging.getLogger(__name__).warning("compiling anew in every process: %s", error)
        compiled = numba.njit(function, nogil=True, error_model="numpy")
    return cast(Callable[..., Any], compiled)


def spread(jobs: Iterable[Callable[[], T]], progress: Progress = silent) -> list[T]:
    """The jobs' results in order, worked out on as many threads as torch uses; a job's exception is raised here.

    Args:
        jobs: what to do.
        progress: told, in the order of the jobs, after each of them.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        futures = [pool.submit(job) for job in jobs]
        results: list[T] = []
        try:
            for future in futures:
                results.append(future.result())
                progress(len(results), len(futures))
        except BaseException:  # Ctrl-C waits for what runs, and for nothing else
            pool.shutdown(cancel_futures=True)
            raise
        return results
