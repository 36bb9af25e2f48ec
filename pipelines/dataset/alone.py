"""Runs of one dataset keep out of each other's way: two at the same time would make everything twice."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from ss4d.pipelines.dataset.launches import recorded_launches
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.pipelines.errors import ConfigError


@contextmanager
def alone(dataset: Dataset, shard: str | None) -> Iterator[None]:
    """Holds the dataset while a run goes on: of all clips against every other run, of a shard against one of all clips.

    That no shard is done by two machines is for who hands them out.

    Raises:
        ConfigError: another run goes on.
        OSError: the dataset's folder cannot be written.
    """
    with dataset.lock("run").open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if shard is None else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            others = [launch.coordinator for launch in recorded_launches(dataset) if not launch.ended]
            where = f" ({others[-1]})" if others else ""
            raise ConfigError(
                f"another run of {dataset.folder} goes on{where}: wait for it, or give each its own part with --shard"
            ) from error
        yield  # the system lets go when the file is closed, also by a kill
