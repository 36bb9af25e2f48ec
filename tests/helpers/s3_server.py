"""An S3 server in a process of its own: `pytest_plugins = ["tests.helpers.s3_server"]` in a test module gives `s3`.

It answers one request at a time, so that a conditional put is one step, as S3 promises it is; moto's own server looks
and writes in two, and two threads could both find nothing there.
"""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import pytest


@dataclass(frozen=True)
class S3:
    """A running server and the environment in which a process finds it."""

    environment: dict[str, str]
    numbers: Iterator[int]

    def new_url(self) -> str:
        """The URL of a prefix, in a bucket that is there, which no other test uses."""
        return f"s3://bucket/some prefix/{next(self.numbers)}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """The server, for all tests of a process."""
    with running() as server:
        yield server


@contextmanager
def running() -> Iterator[S3]:
    """The server; while it runs, this process's environment leads to it."""
    server = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        endpoint = f"http://127.0.0.1:{port}"
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"))
            yield S3(environment, count())
    finally:
        server.kill()
        server.wait()


def serve() -> None:
    """Serves on a free port of this machine only, and prints its number."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve()
