"""Looks at a file of a stranger, in a process of its own: whether it is a video, how long, and its first frame."""

import io
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from ss4d.pipelines.child import Child
from ss4d.pipelines.errors import USER_ERRORS
from ss4d.pipelines.workers import end_with_parent
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.picture import Bounds
from ss4d.stages.reading.sources import opened_source

PATIENCE = 60  # seconds that looking at a file may take
PICTURE_SIDE, QUALITY = 960, 80  # of the picture that is shown, in pixels and of WebP


@dataclass(frozen=True)
class Look:
    """What there is to know of a video: pixels and number of its frames, and the first one used, in WebP."""

    width: int
    height: int
    frames: int
    picture: bytes


class Checker:
    """A process that looks at files, one after the other; one that dies of a file, or takes too long, is replaced.

    Args:
        config: how inputs are read.
        most_seconds: that a video may last.
    """

    def __init__(self, config: InputConfig, most_seconds: float) -> None:
        self._given = (config, most_seconds)
        self._lock = threading.Lock()
        self._child = self._started()

    def look(self, path: Path, title: str) -> Look:
        """What the file holds.

        Raises:
            InputError: it cannot be used; the sentence calls it by its title.
        """
        with self._lock:
            try:
                self._child.pipe.send(path)
                found = self._child.pipe.recv() if self._child.pipe.poll(PATIENCE) else "takes too long to be read"
            except (EOFError, OSError):
                found = "cannot be read: what reads it died of it"
            if isinstance(found, str):
                self._child.kill()
                self._child = self._started()
                raise InputError(f"{title} {found}.")
        if isinstance(found, InputError):
            raise InputError(str(found).replace(str(path), title))
        assert isinstance(found, Look)
        return found

    def _started(self) -> Child:
        return Child(check, *self._given, name="ss4d-serve")

    def close(self) -> None:
        """Ends the process, which has nothing to tidy up."""
        self._child.kill()


def check(config: InputConfig, most_seconds: float, pipe: Connection) -> None:
    """Looks at the files whose paths come through a pipe: gives a `Look`, or an InputError that says what is wrong."""
    end_with_parent()
    while True:
        try:
            path: Path = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_look(path, config, most_seconds))
        except (*USER_ERRORS, OSError) as error:
            pipe.send(InputError(str(error)))


def _look(path: Path, config: InputConfig, most_seconds: float) -> Look:
    with opened_source(path, config) as source:
        line = source.line
        if source.damage:
            raise InputError(source.damage)
        chosen = config.indices(line.count, line.rate)
        if not chosen:
            raise InputError(f"{path} holds no frame that is used.")
        if (seconds := line.count / line.rate) > most_seconds:
            raise InputError(f"{path} lasts {seconds:.3g} seconds, more than the {most_seconds:g} allowed here.")
        first = next(source.read(chosen[:1], Bounds(max_pixels=config.max_pixels)))
    image = Image.fromarray(first.pixels)
    file, (width, height) = io.BytesIO(), image.size
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    image.save(file, "WEBP", quality=QUALITY)
    return Look(width, height, line.count, file.getvalue())
