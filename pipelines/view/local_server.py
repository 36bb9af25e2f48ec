"""Pages for the browsers of this machine: a loopback port, and answers that no other page can use."""

import errno
import signal
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from ss4d.pipelines.errors import ConfigError

LOOPBACK, ALL = "127.0.0.1", "0.0.0.0"  # noqa: S104  (users may ask for it)
# Names by which a page may be asked for: another one would be somebody else's page.
LOCAL_NAMES = (LOOPBACK, "localhost")
GRACE = 2  # seconds that an answer begun may take after Ctrl-C
HEADERS = {
    # A page brings its own policy, which is stricter; this one holds for whatever else is answered, and for both.
    "Content-Security-Policy": "frame-ancestors {frames}; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def guarded_app(names: Sequence[str] = LOCAL_NAMES, *, framed: bool = False) -> FastAPI:
    """An application without routes: it answers only by some names, describes itself to nobody, and no page can use it.

    Args:
        names: by which it may be asked; "*" is any.
        framed: whether its own pages may show each other.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    headers = {name: value.format(frames="'self'" if framed else "'none'") for name, value in HEADERS.items()}

    @app.middleware("http")
    async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(headers)
        return response

    return app


def listen(port: int, host: str = LOOPBACK) -> socket.socket:
    """A socket, by default of this machine alone; port 0 is any that is free.

    Raises:
        ConfigError: the port is taken, or not to be had, or the host is no address of this machine.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(f"{host} is no address of this machine: give one with --host, 0.0.0.0 for all") from error
        raise ConfigError(
            f"port {port} cannot be used on {host} ({error.strerror or error}): give another one with --port, or none "
            "for one that is free"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """What a browser opens; by the machine's name where it listens on all of its addresses."""
    host, port = listener.getsockname()
    return f"http://{socket.gethostname() if host == ALL else host}:{port}/"


def open_browser(address: str) -> None:
    """Asks the system for a browser; does not wait for it, since one that needs a terminal would wait for the page."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


class _Server(uvicorn.Server):
    """Says at once that it has heard Ctrl-C."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._ending()
        super().handle_exit(sig, frame)


def serve(app: FastAPI, listener: socket.socket, ending: Callable[[], None] = lambda: None) -> None:
    """Answers until Ctrl-C, which is how it ends; `ending` is called at once then."""
    config = uvicorn.Config(
        app, ws="none", lifespan="off", log_level="warning", server_header=False, timeout_graceful_shutdown=GRACE
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _Server(config, ending).run(sockets=[listener])
    except KeyboardInterrupt:  # passed on once all is closed
        return
