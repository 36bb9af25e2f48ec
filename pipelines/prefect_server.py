"""A private Prefect server for one run: a child process that lives exactly as long as its parent.

The parent holds the write end of the child's standard input. However the parent ends, SIGKILL included, the system
closes that pipe, and the child leaves. Before, it gets a password through it, which nothing else holds, so that no
other user of the machine can talk to the server. Run as a module it is the child:
`python -m ss4d.pipelines.prefect_server FOLDER`.
"""

import asyncio
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from platformdirs import user_cache_path

from ss4d.pipelines.errors import EngineError
from ss4d.storage.files import is_orphan, listed, owned_name, read_plain, write_bytes

_PREFIX, _LOG = "server-", "server.log"
START_TIMEOUT = 120.0  # seconds; the first start on a machine builds the database, 15 to 30 s

# Quiet and offline. `setdefault`, so that a user's own Prefect settings stand.
PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_CLI_COLORS": "false",
}


def quiet_prefect() -> None:
    """Keeps Prefect quiet and offline; to be called before it is imported, which reads these settings."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)


class LocalServer:
    """Starts the server in the background; `wait` gives its address once it answers; leaving the context ends it.

    Attributes:
        password: what its API asks for, as Prefect's PREFECT_API_AUTH_STRING has it.
    """

    def __init__(self, home: Path) -> None:
        self.password = f"ss4d:{secrets.token_urlsafe(32)}"
        self._home = home
        # Named after this process, which it ends with, so that who shares `home` can tell whether it still lives.
        self._folder = home / f"{_PREFIX}{owned_name()}"

    def __enter__(self) -> "LocalServer":
        _remove_stale(self._home)
        self._folder.mkdir(parents=True, mode=0o700)  # its database tells all that the API does
        with (self._folder / _LOG).open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the run, and the run ends the server.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ss4d.pipelines.prefect_server", str(self._folder)],
                env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already: `wait` says so
            self._process.stdin.write(f"{self.password}\n".encode())
            self._process.stdin.flush()
        return self

    def wait(self) -> str:
        """The address of the server's API, as soon as it answers.

        Raises:
            EngineError: when the server ends early or does not answer in time; names its log.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the user has
        port = self._process.stdout.readline().decode().strip()
        url = f"http://127.0.0.1:{port}/api"
        while port and self._process.poll() is None and time.monotonic() < deadline:
            try:
                with direct.open(f"{url}/health", timeout=5):
                    return url
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        with suppress(OSError):  # its folder goes with it
            write_bytes(self._home / _LOG, read_plain(self._folder / _LOG))
        raise EngineError(
            f"the local Prefect server did not start (see {self._home / _LOG}); "
            "use --engine direct to run without Prefect"
        )

    def lives(self) -> bool:
        """Whether its process goes on."""
        return self._process.poll() is None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def keep_loopback_direct() -> None:
    """Keeps Prefect's client from asking a proxy of the user's for a server on this very machine."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))


def _serve(folder: Path, password: str) -> None:
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    os.environ.update(PREFECT_DEFAULTS)
    os.environ["PREFECT_HOME"] = str(folder)
    os.environ["PREFECT_SERVER_API_AUTH_STRING"] = password  # of this process alone: what others see is the start's
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201  (the parent reads it)
    _prepare_database(folder)

    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(ephemeral=True), log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def _prepare_database(folder: Path) -> None:
    """Building the database takes most of a start, so an empty one is kept in the user's cache, a copy for each run."""
    import prefect

    template = user_cache_path("ss4d") / f"prefect-{prefect.__version__}.db"
    if template.exists():
        shutil.copyfile(template, folder / "prefect.db")
        return
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        copy = template.with_name(f"{template.name}.{os.getpid()}")
        # SQLite's own copy: a plain one would miss what still lies in its write-ahead log.
        with closing(sqlite3.connect(folder / "prefect.db")) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.replace(template)
    except (OSError, sqlite3.Error) as error:
        print(f"cannot keep the empty database in {template}: {error}", file=sys.stderr)  # noqa: T201  (to the log)


def _leave_with_parent(folder: Path) -> None:
    os.read(0, 1)  # unbuffered: returns when the parent is gone
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _remove_stale(home: Path) -> None:
    """Folders of servers that were killed before they could clean up."""
    for name in listed(home):
        if name.startswith(_PREFIX) and is_orphan(name.removeprefix(_PREFIX)):
            shutil.rmtree(home / name, ignore_errors=True)


if __name__ == "__main__":
    if given := os.read(0, 512).decode().strip():  # so few bytes arrive whole; none, if the parent is gone
        _serve(Path(sys.argv[1]).resolve(), given)
