"""The server that tests fork processes from: it has loaded what they run, and started no thread that a fork would lose.

All test modules share it, since multiprocessing has but one.
"""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.helpers.warmed"])
