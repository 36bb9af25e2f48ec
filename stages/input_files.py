"""The files of an input: which of its frames are used, its images in their order, and the digest of its content."""

import hashlib
import os
import re
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ss4d.stages.errors import InputError
from ss4d.stages.reading.series import frame_names
from ss4d.stages.stage_config import AsBefore, Limit

MOST_PIXELS = 178_956_970  # beyond that Pillow refuses a picture, whatever is set here
LEAST_RATE, MOST_RATE = 0.001, 1000.0  # frames per second
LATEST = 1e9  # seconds, some thirty years
SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) *s")


def check_place(value: int | str | None) -> int | str | None:
    """A frame's number, or seconds such as "2.5s"; raises ValueError for anything else."""
    if isinstance(value, str) and not (SECONDS.fullmatch(value) and float(value.rstrip("s ")) <= LATEST):
        raise ValueError("must be a frame's number, or seconds such as 2.5s")
    if isinstance(value, int) and value < 0:
        raise ValueError("must be 0 or more")
    return value


class InputConfig(BaseModel):
    """Which frames of the input are used, and how they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: Annotated[int | str, AfterValidator(check_place)] = Field(
        0, description="first frame, counted from 0, or where it is in seconds, such as 2.5s"
    )
    end: Annotated[int | str | None, AsBefore(None), AfterValidator(check_place)] = Field(
        None, description="the frame after the last, or its time in seconds, such as 4s; null: the input's end"
    )
    step: int = Field(1, ge=1, description="use every step-th frame from there; 1 uses all")
    count: int | None = Field(None, ge=1, description="use at most this many frames; null uses all")
    frames: Annotated[int | None, AsBefore(None)] = Field(
        None, ge=1, description="use at most this many of these, evenly over their whole time; null uses all"
    )
    fps: float = Field(
        24.0, ge=LEAST_RATE, le=MOST_RATE, description="frames per second of an input that states none: images, a still"
    )
    rate: Annotated[float | None, AsBefore(None)] = Field(
        None,
        ge=LEAST_RATE,
        le=MOST_RATE,
        description="use this many frames per second, if there are more; null uses all",
    )
    premultiplied: Annotated[bool, AsBefore(False)] = Field(
        False, description="whether colors are multiplied by alpha already; false: straight alpha"
    )
    max_pixels: Annotated[int, Limit()] = Field(
        100_000_000, ge=1, le=MOST_PIXELS, description="largest picture that is decoded"
    )
    max_pause: Annotated[float, AsBefore(5.0)] = Field(
        5.0, gt=0, le=LATEST, description="seconds that a picture stays at most; longer pauses are shortened to that"
    )
    max_rate: Annotated[float, AsBefore(MOST_RATE)] = Field(
        MOST_RATE,
        ge=LEAST_RATE,
        le=1e5,
        description="frames per second that time stamps may tell; those that tell more are not followed",
    )
    max_animation: Annotated[int, Limit()] = Field(
        5_000_000_000, ge=1, description="pixels of all frames of an animated image, which are all decoded"
    )
    memory: Annotated[float, Limit()] = Field(
        4.0, gt=0, le=1e6, description="GiB that the frames that are used may take"
    )

    def candidates(self, total: int, rate: float) -> range:
        """Which of `total` frames, `rate` a second, start, end, step and count choose."""
        begin, end = _frame(self.start, rate), total if self.end is None else _frame(self.end, rate)
        return range(total)[begin : max(begin, end) : self.step][: self.count]

    def indices(self, total: int, rate: float) -> Sequence[int]:
        """Which of `total` frames, `rate` a second, are used, in order."""
        some = self.candidates(total, rate)
        most = len(some) if self.frames is None else self.frames
        if self.rate is not None and some:
            most = min(most, max(1, round(len(some) * self.step * self.rate / rate)))
        if len(some) <= most:
            return some
        return [some[i * len(some) // most] for i in range(most)]


def _frame(place: int | str, rate: float) -> int:
    """The frame at a place: its number, or what is shown from that second on."""
    return place if isinstance(place, int) else round(float(place.rstrip("s ")) * rate)


def input_digest(path: Path) -> str:
    """The sha256, in hexadecimal, of a file's bytes, or of the names and bytes of a folder's images in their order.

    Raises:
        InputError: the input is missing or unreadable, or a folder holds no image.
    """
    if not os.path.isdir(path):
        return _file_digest(path).hexdigest()
    digest = hashlib.sha256()
    for file in image_files(path):
        digest.update(hashlib.sha256(os.fsencode(file.name)).digest() + _file_digest(file).digest())
    return digest.hexdigest()


def input_state(path: Path) -> list[tuple[str, int, int, int]]:
    """What changes when a file of an input does: name, inode, size and time of each; nothing is read from them.

    Raises:
        InputError: the input is missing or unreadable, or a folder holds no image.
    """
    states = []
    for file in image_files(path) if os.path.isdir(path) else [path]:
        with open_file(file) as opened:
            found = os.fstat(opened.fileno())
        states.append((file.name, found.st_ino, found.st_size, found.st_mtime_ns))
    return states


def _file_digest(path: Path) -> "hashlib._Hash":
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256")


def open_file(path: Path) -> BufferedReader:
    """A file of an input, open to be read; raises InputError if it is missing, unreadable or no file."""
    if "\0" in str(path):  # as a record may have it, and no file system
        raise InputError(f"{str(path)!r} is no path of an input: there is a NUL character in it.")
    # os.path answers "no" where pathlib raises, for example under a folder that may not be entered.
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is neither a file nor a folder; give a video file or a folder of images.")
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a video file or a folder of images.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable or give another.") from error


def image_files(folder: Path) -> list[Path]:
    """The frames in a folder in natural order; hidden files, folders and files that are no images are passed over.

    Raises:
        InputError: there is no image, or they are not of one series, see `frame_names`.
    """
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and not entry.is_dir()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); make it readable or give another.") from error
    return [folder / name for name in frame_names(str(folder), names)]
