"""The files of an input: which of its frames are used, its images in their order, and the digest of its content."""

import hashlib
import os
import re
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ss4d.stages.errors import InputError
from ss4d.stages.stage_config import AsBefore

STILLS = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class InputConfig(BaseModel):
    """Which frames of the input are used."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: int = Field(0, ge=0, description="first frame, counted from 0")
    step: int = Field(1, ge=1, description="use every step-th frame from there; 1 uses all")
    count: int | None = Field(None, ge=1, description="use at most this many frames; null uses all")
    frames: Annotated[int | None, AsBefore(None)] = Field(
        None, ge=1, description="use at most this many of these, evenly over their whole time; null uses all"
    )
    fps: float = Field(
        24.0, gt=0, allow_inf_nan=False, description="frames per second of an input that states none: images, a still"
    )

    def candidates(self, total: int) -> range:
        """Which of `total` frames start, step and count choose."""
        return range(total)[self.start :: self.step][: self.count]

    def indices(self, total: int) -> Sequence[int]:
        """Which of `total` frames are used, in order."""
        some = self.candidates(total)
        if self.frames is None or len(some) <= self.frames:
            return some
        return [some[i * len(some) // self.frames] for i in range(self.frames)]


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


def _file_digest(path: Path) -> "hashlib._Hash":
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256")


def open_file(path: Path) -> BufferedReader:
    """A file of an input, open to be read; raises InputError if it is missing, unreadable or no file."""
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
    """The images in a folder in natural order, hidden ones left out; raises InputError if there is none."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); make it readable or give another.") from error
    images = [entry for entry in entries if entry.suffix.lower() in STILLS and not entry.is_dir()]
    if not images:
        held = f"holds no image among its {len(entries)} entries" if entries else "is an empty folder"
        raise InputError(f"{folder} {held}; give a folder of images ({', '.join(sorted(STILLS))}) or a video file.")
    return sorted(images, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts 2.png before 10.png: runs of digits by value, then the rest letter by letter."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts], path.name
