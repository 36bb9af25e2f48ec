"""One case: a changed file read in a forked process, and what that must never do."""

import os
import resource
import shlex
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.fuzz.kinds import KINDS, Reader
from tests.fuzz.mutations import mutate
from tests.fuzz.reused import ReusedSample
from tests.helpers.forked import forked
from tests.helpers.served import command

CPU_SECONDS, WALL_SECONDS = 10, 120  # a machine may be busy, so that waiting alone is no sign of a hang
MEMORY = 1 << 30  # bytes that a case may take beyond what the server has
ROOM = 4 << 30  # bytes of addresses beyond the server's, so that one case cannot take the machine
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate", "os.chmod"}
STARTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}
ASKS = {"socket.connect", "socket.getaddrinfo", "socket.sendto"}


@dataclass(frozen=True)
class Failure:
    """What a case must not do, and did.

    Attributes:
        kind: of the file.
        number: of the case.
        what: it did; equal for failures of one cause, as far as that can be told.
        command: that reads the file.
        output: the end of what was printed.
    """

    kind: str
    number: int
    what: str
    command: str
    output: str


class Room:
    """Folders for one case after the other: samples as they should be, and the case, always at the same path.

    Args:
        root: a new folder; nothing outside its `case`, `cache` and `temporary` may be changed by a case.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.case = root / "case"
        self.allowed = tuple(str(root / name) + "/" for name in ("case", "cache", "temporary"))
        self._reused: dict[str, ReusedSample] = {}
        self._last = "none"  # the sample that the last case was made of
        for name in ("cache", "temporary", "samples", "used", "home"):
            (root / name).mkdir(parents=True)

    def sample(self, kind: str) -> Path:
        """A sample as it should be, in the place of the last case; names in it hold, since it was made there."""
        make = KINDS[kind].sample
        name = make.__name__
        if self.case.exists() and name != self._last:
            self.case.rename(self.root / "used" / self._last)
        if name not in self._reused:
            code = forked(lambda: _make(self, make), self.root / "output", 600)[0]
            if code != 0:
                raise RuntimeError(f"no sample of {kind}:\n{(self.root / 'output').read_text()}")
            self.case.rename(self.root / "samples" / name)
            self._reused[name] = ReusedSample(self.root / "samples" / name, self.case)
        elif name != self._last:
            (self.root / "used" / name).rename(self.case)
        self._last = name
        self._reused[name].put_right()
        return self.case

    def prepare(self, kind: str, number: int) -> tuple[Path, Reader]:
        """Makes a case: its changed file, and what is to read it; a number decides everything."""
        random = Random(f"{kind} {number}")
        self.sample(kind)
        files = sorted(path for glob in KINDS[kind].files for path in self.case.glob(glob) if path.is_file())
        file = random.choice(files)
        file.write_bytes(mutate(random, file.read_bytes(), KINDS[kind].changes))
        return file, random.choice(KINDS[kind].readers)

    def run(self, kind: str, number: int) -> Failure | None:
        """Makes a case and lets a forked process read it."""
        file, reader = self.prepare(kind, number)
        return self.read(kind, number, file, reader)

    def read(self, kind: str, number: int, file: Path, reader: Reader) -> Failure | None:
        """Lets a forked process read a case."""
        output, notes = self.root / "output", self.root / "notes"
        notes.write_bytes(b"")
        name = str(file.relative_to(self.case))
        words = [name if word == "FILE" else word for word in reader] if isinstance(reader, tuple) else []
        started = psutil.Process().memory_info().rss
        code, usage = forked(lambda: _read(self, file, reader, words), output, WALL_SECONDS)
        text = output.read_bytes()
        noted = notes.read_text(errors="replace")
        what = judged(code, text, noted, usage.ru_maxrss * 1024 - started)
        if what is None:
            return None
        command = f"ss4d {shlex.join(words)}" if words else f"{getattr(reader, '__name__', '')}({name})"
        return Failure(kind, number, what, command, text[-3000:].decode(errors="replace") + noted)


def judged(code: int, output: bytes, notes: str, memory: int) -> str | None:
    """What was wrong with the end of a process; None if nothing was."""
    if code == -signal.SIGXCPU:
        return f"took more than {CPU_SECONDS} s of a processor"
    if code == -signal.SIGKILL:
        return f"was not done after {WALL_SECONDS} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if notes:
        return notes.splitlines()[0]
    if memory > MEMORY:
        return f"took more than {MEMORY >> 20} MiB"
    if code not in (0, 1, 2):
        return f"ended with {code}"
    if b"Traceback (most recent call last)" in output:
        return "printed a traceback"
    if any(byte < 32 and byte not in b"\n\t" for byte in output):
        return "printed control characters"
    return None


def _make(room: Room, make: Any) -> int:
    _at_home(room)
    make(room.case)
    return 0


def _at_home(room: Room) -> None:
    tempfile.tempdir = None  # the server's
    os.environ.update(
        HOME=str(room.root / "home"), XDG_CACHE_HOME=str(room.root / "cache"), TMPDIR=str(room.root / "temporary")
    )


def _read(room: Room, file: Path, reader: Reader, words: list[str]) -> int:
    from ss4d.cli.failures import explained

    _at_home(room)
    os.chdir(room.case)
    here = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (here + ROOM, here + ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    notes = os.open(room.root / "notes", os.O_WRONLY | os.O_APPEND)
    _note_defects(notes)
    sys.argv = ["ss4d", *words]
    sys.addaudithook(lambda event, arguments: _hear(room, notes, event, arguments))
    try:
        if words:
            command()(words)
        else:
            with explained(False, "nothing was changed"):
                reader(room.case, file)  # type: ignore[operator]  # no words, so a function
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        if type(error).__module__.startswith("typer") or hasattr(error, "exit_code"):
            return int(error.exit_code)  # type: ignore[attr-defined]  # how `explained` leaves outside a command
        raise
    return 0


def _note_defects(notes: int) -> None:
    """Lets exceptions that are not explained be noted with the line that raised them."""
    from ss4d.pipelines import errors

    explain = errors.explain

    def noted(error: BaseException, folder: str = "--out") -> str | None:
        sentence = explain(error, folder)
        if sentence is None:
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename
            ]
            own = [frame for frame in frames if "/tests/" not in frame.filename and "/lib/python" not in frame.filename]
            at = (own or frames)[-1]
            os.write(notes, f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno} in {at.name}\n".encode())
            traceback.print_exception(error)
        return sentence

    errors.explain = noted


def _hear(room: Room, notes: int, event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what a process must not do."""
    if event in STARTS:
        os.write(notes, f"started a program: {arguments[0]!r}\n".encode(errors="replace"))
    elif event in ASKS:
        os.write(notes, f"asked the network: {event}\n".encode())
    elif event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(path, int) or path is None:
                continue
            parent, _, name = os.path.abspath(os.fsdecode(path)).rpartition("/")
            real = f"{os.path.realpath(parent)}/{name}" if event != "open" else os.path.realpath(os.fsdecode(path))
            if "/__pycache__" not in real and not f"{real}/".startswith(room.allowed) and real != os.devnull:
                os.write(notes, f"changed what is outside its folder: {event}\n".encode())
                os.write(notes, f"{real}\n".encode(errors="replace"))
