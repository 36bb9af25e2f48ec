"""What an input is: a folder or an archive of images, an image, or a video; each gives its frames in the same way."""

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Protocol

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig, image_files, open_file
from ss4d.stages.reading.films import film_frames, is_raw_mjpeg
from ss4d.stages.reading.images import decode_image, image_frames, num_pictures, open_image
from ss4d.stages.reading.picture import Bounds, Picture
from ss4d.stages.reading.series import frame_names
from ss4d.stages.reading.timeline import Timeline, steady

ZIP = b"PK\x03\x04"
PIXEL_BYTES = 8  # of 16 bit and four channels: no file of a picture need be larger than this for each of its pixels
PIECE = 1 << 20  # bytes
HELD = 64 * PIECE  # of an archive's file that memory holds; a larger one lies in a temporary file
BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError)


class FrameSource(Protocol):
    """An open input."""

    @property
    def line(self) -> Timeline:
        """Its frames over time."""

    @property
    def damage(self) -> str | None:
        """A sentence on where it breaks off; None if that was not seen."""

    def label(self, frame: int) -> str:
        """What a frame is called in sentences."""

    def read(self, wanted: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """The frames `wanted`, in rising order, as pictures; decodes one after the other, and none that is not needed.

        Raises:
            InputError: one of them is damaged or too large.
        """


@dataclass(frozen=True, eq=False)
class Images:
    """Still images, each a frame.

    Attributes:
        names: in order.
        opened: opens one by its name.
    """

    names: Sequence[str]
    opened: Callable[[str, Bounds], IO[bytes]]
    line: Timeline
    damage: str | None = None

    def label(self, frame: int) -> str:
        """The file's name."""
        return PurePosixPath(self.names[frame]).name

    def read(self, wanted: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """See `FrameSource`."""
        for frame in wanted:
            name = self.names[frame]
            with self.opened(name, bounds) as file:
                image = open_image(file, name, bounds)
                if image is None:
                    raise InputError(f"{name} is not an image that can be read; replace or remove it.")
                with image:
                    if image.format != "MPO" and num_pictures(image, name) > 1:
                        raise InputError(f"{name} is animated; give the file itself, or a folder of still images.")
                    yield decode_image(image, 0, name, bounds)


@contextmanager
def opened_source(path: Path, config: InputConfig) -> Iterator[FrameSource]:
    """An input, open to be read.

    Raises:
        InputError: it is missing, unreadable, empty or of no known kind.
    """
    if os.path.isdir(path):
        files = {str(file): file for file in image_files(path)}
        yield Images(list(files), lambda name, _: open_file(files[name]), steady(len(files), config.fps))
        return
    with open_file(path) as file, _within(path, file, config) as source:
        yield source


@contextmanager
def _within(path: Path, file: IO[bytes], config: InputConfig) -> Iterator[FrameSource]:
    """The frames in an open file."""
    name, bounds = str(path), Bounds(max_pixels=config.max_pixels)
    image = open_image(file, name, bounds)
    if image is not None:
        with image:
            if image.format == "JPEG" and is_raw_mjpeg(file, image.size, bounds):
                yield film_frames(file, name, config, kind="mjpeg")
            else:
                yield image_frames(image, name, config)
        return
    members = _members(file, name)
    if members is None:
        yield film_frames(file, name, config)
        return
    names = _one_folder(name, list(members))
    labels = {f"{name}/{member}": members[member] for member in names}
    yield Images(list(labels), lambda label, limit: labels[label](limit), steady(len(labels), config.fps))


Member = Callable[[Bounds], IO[bytes]]


def _members(file: IO[bytes], name: str) -> dict[str, Member] | None:
    """The files in an archive by their names, each to be opened; None if it is none."""
    head = file.read(len(ZIP))
    file.seek(0)
    try:
        if head == ZIP:
            packed = zipfile.ZipFile(file)
            return {
                info.filename: partial(_unpacked, partial(packed.open, info), f"{name}/{info.filename}")
                for info in packed.infolist()
                if not info.is_dir()
            }
        if tarfile.is_tarfile(file):
            file.seek(0)
            tape = tarfile.open(fileobj=file)  # noqa: SIM115  it holds nothing but the file, which is closed
            return {
                info.name: partial(_unpacked, partial(tape.extractfile, info), f"{name}/{info.name}")
                for info in tape
                if info.isreg()
            }
    except BROKEN_ARCHIVE as error:
        raise InputError(f"{name} is a damaged archive ({error}); replace it.") from error
    file.seek(0)
    return None


def _unpacked(opened: Callable[[], IO[bytes] | None], name: str, bounds: Bounds) -> IO[bytes]:
    """A file of an archive, unpacked: only so can a decoder go back and forth in it."""
    most, held = bounds.max_pixels * PIXEL_BYTES, SpooledTemporaryFile(HELD)  # noqa: SIM115  the caller has it closed
    try:
        with opened() or io.BytesIO() as stream:
            # In pieces: at once, an archive's reader holds all twice.
            while held.tell() <= most and (piece := stream.read(PIECE)):
                held.write(piece)
    except (*BROKEN_ARCHIVE, RuntimeError) as error:  # a RuntimeError asks for a password
        raise InputError(f"{name} cannot be unpacked ({error}); give the images in a folder.") from error
    if held.tell() > most:
        raise InputError(f"{name} is larger than any picture of input.max_pixels, {bounds.max_pixels:,}; raise that.")
    held.seek(0)
    return held


def _one_folder(archive: str, names: Sequence[str]) -> list[str]:
    """The frames among an archive's files, in order; hidden ones are passed over."""
    folders: dict[str, dict[str, str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if not any(part.startswith((".", "__MACOSX")) for part in path.parts):
            folders.setdefault(str(path.parent), {})[path.name] = name
    found = {}
    for folder, held in folders.items():
        try:
            found[folder] = [held[name] for name in frame_names(f"{archive}/{folder}".removesuffix("/."), list(held))]
        except InputError:
            if len(folders) == 1:
                raise
    if len(found) > 1:
        first, second, *_ = sorted(found)
        raise InputError(f"{archive} holds images in more than one folder, {first} and {second}; pack one of them.")
    if not found:
        raise InputError(f"{archive} holds no images; give an archive of one folder of images, or a video file.")
    return next(iter(found.values()))
