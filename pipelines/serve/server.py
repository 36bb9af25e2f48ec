"""A server of the web application, from its folder to its port."""

import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path

from ss4d.pipelines.config import load_config
from ss4d.pipelines.devices import gpu_names
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.seed import DEFAULT_SEED
from ss4d.pipelines.serve.access import new_token
from ss4d.pipelines.serve.app import Limits, Parts, serve_app
from ss4d.pipelines.serve.assets import Assets
from ss4d.pipelines.serve.check import Checker
from ss4d.pipelines.serve.line import Line
from ss4d.pipelines.serve.submissions import Submissions
from ss4d.pipelines.serve.worker import Making
from ss4d.pipelines.view.local_server import LOOPBACK, address_of, listen, serve
from ss4d.stages.ops.device import resolve_device

SUBMISSIONS = "submissions"  # beside the runs and the store


class Server:
    """The web application, listening; `serve` answers.

    Args:
        out: for submissions, runs and store.
        port: 0 is any that is free.
        host: an address of this machine; None for this machine alone. Others need a token.
        config: a bundled configuration or a file.
        overrides: of it.
        device: "auto", "cpu" or "cuda"; there is a worker for each GPU, or one on the CPU.
        limits: what is refused.
        most_waiting: submissions that may wait at once.
        most_minutes: that making one may take.

    Raises:
        ConfigError: the configuration, the port or the folder cannot be used.
        InputError: there is no such device.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        out: Path,
        *,
        port: int,
        host: str | None,
        config: str,
        overrides: Sequence[str],
        device: str,
        limits: Limits,
        most_waiting: int,
        most_minutes: float,
    ) -> None:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is there already, and no folder: give another")
        known = load_config(config, overrides)  # a mistake is told at once, and not to the first who hands something in
        meant = resolve_device(device)
        self._listener = listen(port, host or LOOPBACK)
        self.token = None if host is None or _is_loopback(host) else new_token()
        submissions = self._submissions = Submissions(out / SUBMISSIONS)
        self._checker = Checker(known.input, limits.most_seconds)
        self._line = Line(
            submissions,
            Making(out=out, config=config, seed=DEFAULT_SEED, device=meant),
            overrides,
            gpu_names() if meant == "cuda" else [None],
            most_waiting=most_waiting,
            most_seconds=60 * most_minutes,
        )
        parts = Parts(submissions, self._checker, self._line, Assets(out, submissions.folder), limits)
        self._app = serve_app(parts, self.token)

    @property
    def address(self) -> str:
        """What a browser opens."""
        return address_of(self._listener)

    def serve(self, ending: Callable[[], None]) -> None:
        """Answers until Ctrl-C; `ending` is called at once then."""
        try:
            serve(self._app, self._listener, ending)
        finally:
            self._line.close()
            self._checker.close()
            self._submissions.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
