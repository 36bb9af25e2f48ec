"""How many processors there are to work on."""

import os


def num_processors() -> int:
    """How many processors this process may use; a container may have fewer than its host."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
