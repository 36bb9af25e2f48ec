"""A small Hugging Face hub on this machine, with the endpoint that downloads use, for a few repositories of bytes.

`pytest_plugins = ["tests.helpers.fake_hub"]` in a test module gives `fake_hub`.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

LARGE = (".safetensors", ".onnx")  # as a hub has it: told by their SHA-256, others by what git calls them


@dataclass
class Repository:
    """A repository of the hub.

    Attributes:
        commits: the files of each commit, by name.
        main: the newest commit.
        token: that opens it; None if it is for everybody.
        gated: whether the token's owner has yet to accept terms.
    """

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    main: str = ""
    token: str | None = None
    gated: bool = False

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Moves the main branch on to these files."""
        self.main = hashlib.sha1(repr((self.main, sorted(files.items()))).encode()).hexdigest()
        self.commits[self.main] = dict(files)
        return self.main


@dataclass
class FakeHub:
    """The hub.

    Attributes:
        repositories: by "org/name".
        asked: the method and file of every request, such as "GET config.json".
        cut: names of files of which only the first half is sent.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)

    def new(self, name: str, files: Mapping[str, bytes]) -> Repository:
        """A repository with one commit."""
        repository = self.repositories[name] = Repository()
        repository.commit(files)
        return repository

    @property
    def fetched(self) -> set[str]:
        """The names of the files whose content was asked for."""
        return {words.removeprefix("GET ") for words in self.asked if words.startswith("GET ")}


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A hub for as long as the block lasts."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *words: Any) -> None:
            """Nothing."""

        def _answer(self) -> None:
            org, name, verb, revision, *rest = unquote(self.path.partition("?")[0]).strip("/").split("/")
            file = "/".join(rest)
            hub.asked.append(f"{self.command} {file}")
            repository = hub.repositories.get(f"{org}/{name}")
            if repository is None or verb != "resolve":
                return self._refuse(404, "RepoNotFound")
            if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
                return self._refuse(401, "RepoNotFound")
            if repository.gated:
                return self._refuse(403, "GatedRepo")
            commit = repository.main if revision == "main" else revision
            if commit not in repository.commits:
                return self._refuse(404, "RevisionNotFound")
            content = repository.commits[commit].get(file)
            if content is None:
                return self._refuse(404, "EntryNotFound", commit)
            return self._send(file, content, commit)

        def _refuse(self, status: int, code: str, commit: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, file: str, content: bytes, commit: str) -> None:
            large = file.endswith(LARGE)
            digest = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{digest}"')
            if large:
                self.send_header("X-Linked-Etag", f'"{digest}"')
                self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if self.command == "GET":
                part = content[start:]
                self.wfile.write(part[: len(part) // 2] if file in hub.cut else part)
                self.close_connection = file in hub.cut

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that this process takes for the real one, with an empty cache of its own."""
    from huggingface_hub import constants

    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for name, value in {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "hub")}.items():
            monkeypatch.setenv(name, value)  # for other processes
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub
