"""Videos that were handed in, each in a folder of its own: the file, a picture of it, and what has become of it.

What lies there is all that a server remembers, so one that starts again goes on where the last one stopped.
"""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ss4d.pipelines.errors import ConfigError, explain
from ss4d.pipelines.one_writer import agree, lock_file
from ss4d.storage.files import delete, leads_out, listed, owned_name, read_plain, write_bytes

LOG = logging.getLogger("ss4d.serve")
VIDEO, PICTURE, RECORD = "video", "picture.webp", "submission.json"
DIGITS = 32  # of an id, hexadecimal: who knows one may see what it is of, so nobody guesses it
ID = rf"[0-9a-f]{{{DIGITS}}}"
State = Literal["new", "waiting", "running", "done", "failed"]
MOST_TITLE = 120  # letters


class Submission(BaseModel):
    """A video that was handed in.

    Attributes:
        id: also the name of its run.
        title: the name of the file, as the user has it.
        created: seconds since 1970.
        width, height: pixels of its first frame.
        frames: that it has.
        point: a pixel of the object, x and y in the first frame, if the user showed it.
        state: "new" until the user asks for the asset.
        message: why it failed.
        deaths: how many processes have died of it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(pattern=f"^{ID}$")]
    title: Annotated[str, Field(max_length=MOST_TITLE)]
    created: float
    width: int
    height: int
    frames: int
    point: tuple[int, int] | None = None
    state: State = "new"
    message: str = ""
    deaths: int = 0


class Submissions:
    """All of a folder, which one server at a time may have.

    Args:
        folder: made if missing.

    Raises:
        ConfigError: another server has it.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file = lock_file(folder, ".server")
        if not agree(self._file, owned_name()):
            raise ConfigError(f"another server has {folder}: give this one a folder of its own with --out")
        for name in listed(folder):
            if name.startswith(".") and (folder / name).is_dir():
                delete(folder / name)  # what was on its way when the last server ended
        known = (self._read(name) for name in listed(folder) if not name.startswith("."))
        self._all = {submission.id: submission for submission in known if submission is not None}

    def _read(self, name: str) -> Submission | None:
        try:
            submission = Submission.model_validate_json(read_plain(self.folder / name / RECORD))
        except (OSError, ValidationError):  # not one of ours, or damaged: nothing is known of it
            return None
        return submission if submission.id == name else None

    def __len__(self) -> int:
        return len(self._all)

    def get(self, id_: str) -> Submission | None:
        """The submission of this id."""
        return self._all.get(id_)

    def unfinished(self) -> list[str]:
        """Ids of those that wait or were being made, in the order of their arrival."""
        left = [each for each in self._all.values() if each.state in ("waiting", "running")]
        return [each.id for each in sorted(left, key=lambda each: each.created)]

    def folder_of(self, id_: str) -> Path:
        """Where its files lie."""
        return self.folder / id_

    @contextmanager
    def arriving(self) -> Iterator[Path]:
        """A new folder for what arrives; it is gone afterwards, unless `add` took it."""
        place = self.folder / f".{owned_name()}"
        place.mkdir()
        try:
            yield place
        finally:
            delete(place)

    def add(self, place: Path, title: str, width: int, height: int, frames: int) -> Submission:
        """Takes in what has arrived in the folder `place`."""
        submission = Submission(
            id=secrets.token_hex(DIGITS // 2),
            title=title[:MOST_TITLE],
            created=time.time(),
            width=width,
            height=height,
            frames=frames,
        )
        write_bytes(place / RECORD, submission.model_dump_json(indent=1).encode())
        with self._lock:
            place.rename(self.folder / submission.id)
            self._all[submission.id] = submission
        return submission

    def change(self, id_: str, **values: object) -> Submission | None:
        """Notes what has become of it; None if it was removed meanwhile.

        What cannot be written, on a full disk for instance, is known as long as this server lives.
        """
        with self._lock:
            if id_ not in self._all:
                return None
            changed = self._all[id_].model_copy(update=values)
            self._all[id_] = changed
            try:
                write_bytes(self.folder / id_ / RECORD, changed.model_dump_json(indent=1).encode())
            except OSError as error:
                LOG.warning("%s is %s, which the next server will not know: %s", id_, changed.state, explain(error))
            return changed

    def close(self) -> None:
        """Lets another server have the folder."""
        self._file.close()

    def remove(self, id_: str) -> None:
        """Forgets it, and deletes its files."""
        with self._lock:
            if self._all.pop(id_, None) is not None:
                shutil.rmtree(self.folder / id_, ignore_errors=True)


def delete_run(out: Path, id_: str) -> None:
    """Deletes the folder of a submission's run; the store keeps what its stages gave until `ss4d gc`."""
    if not leads_out(out, f"runs/{id_}"):
        delete(out / "runs" / id_)
