"""An input that comes through standard input, kept as a file: stages read it again, also in a run that goes on."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from ss4d.stages.errors import InputError

FOLDER = "inputs"  # in the folder of a command's output
NAME = "stdin"  # of the run, where none is given
PIECE = 1 << 20  # bytes


def keep_standard_input(stream: BinaryIO, out: Path) -> Path:
    """The file below `out` that holds all that `stream` gives; what was kept before of the same content is used.

    Raises:
        InputError: the stream is a terminal, or gives nothing.
        OSError: the file cannot be written.
    """
    if stream.isatty():
        raise InputError("The input - is standard input, which is a terminal; give a file with < or |.")
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor, unfinished = tempfile.mkstemp(prefix=".unfinished-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            while piece := stream.read(PIECE):
                digest.update(piece)
                file.write(piece)
            if not file.tell():
                raise InputError("The input - is standard input, which gave nothing; give a file with < or |.")
            os.fsync(file.fileno())
        kept = folder / digest.hexdigest()
        os.replace(unfinished, kept)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return kept
