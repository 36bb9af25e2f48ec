"""Which engine does a run's jobs, and what it does about errors that can pass."""

import errno
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from ss4d.pipelines import engines
from ss4d.pipelines.engines import Schedule, chosen_engine, direct, prefect
from ss4d.pipelines.prefect_server import LocalServer
from ss4d.storage.files import owned_name
from ss4d.storage.refs import ArtifactRef

PROFILES = """
active = "mine"
[profiles.mine]
PREFECT_API_URL = "http://127.0.0.1:4200/api"
[profiles.plain]
PREFECT_SERVER_EPHEMERAL_ENABLED = "true"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Prefect home without profiles, and no other setting of the user's."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def test_what_a_user_asks_for_is_used(home: Path) -> None:
    (home / "profiles.toml").write_text(PROFILES)
    assert [chosen_engine(word) for word in ("prefect", "direct")] == ["prefect", "direct"]


def test_auto_is_direct_without_a_server(home: Path) -> None:
    assert chosen_engine("auto") == "direct"


def test_auto_is_prefect_where_the_environment_names_a_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert chosen_engine("auto") == "prefect"


def test_auto_is_prefect_where_the_active_profile_names_a_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "profiles.toml").write_text(PROFILES)
    assert chosen_engine("auto") == "prefect"
    monkeypatch.setenv("PREFECT_PROFILE", "plain")
    assert chosen_engine("auto") == "direct"


@pytest.mark.parametrize("content", ["active = ", "active = 3", "profiles = 3", "[profiles]\nmine = 3\n"])
def test_profiles_that_cannot_be_read_name_no_server(home: Path, content: str) -> None:
    (home / "profiles.toml").write_text(content)
    assert chosen_engine("auto") == "direct"


def schedule(tmp_path: Path, do: Any) -> Schedule:
    return Schedule("clip", [SimpleNamespace(step=SimpleNamespace(stage="slat"))], do, lambda: None, tmp_path)


def test_errors_that_can_pass_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "RETRY_DELAY", 0)
    failures = [OSError(errno.EIO, "a bad moment"), OSError(errno.ESTALE, "another")]

    def do(job: object) -> None:
        if failures:
            raise failures.pop()

    direct(schedule(tmp_path, do))
    assert failures == []


@pytest.mark.parametrize(("error", "times"), [(OSError(errno.ENOSPC, "full"), 1), (OSError(errno.EIO, "always"), 3)])
def test_an_error_that_stays_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, times: int
) -> None:
    monkeypatch.setattr(engines, "RETRY_DELAY", 0)
    seen = []

    def do(job: object) -> None:
        seen.append(job)
        raise error

    with pytest.raises(OSError, match=str(error.strerror)):
        direct(schedule(tmp_path, do))
    assert len(seen) == times


def test_a_run_goes_on_without_its_private_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the last stage computes: what is stored is not made again, and nobody waits for the dead."""
    told: list[tuple[str, float]] = []

    def do(job: Any) -> None:
        told.append((job.step.stage, time.monotonic()))
        if job.step.stage == "slat":
            (server,) = (p for p in psutil.Process().children() if "ss4d.pipelines.prefect_server" in p.cmdline())
            server.kill()

    jobs = [
        SimpleNamespace(step=SimpleNamespace(stage=stage, ref=ArtifactRef(stage, "0" * 64)), inputs={})
        for stage in ("conditioning", "slat")
    ]
    said: list[str] = []
    monkeypatch.setattr(engines.LOG, "warning", said.append)
    prefect(Schedule("clip", jobs, do, lambda: None, home))  # type: ignore[arg-type]
    assert [stage for stage, _ in told] == ["conditioning", "slat"]
    assert time.monotonic() - told[-1][1] < 60  # seconds, and a busy machine; it was minutes
    assert said == ["the private Prefect server has ended; the run goes on without it"]
    assert not list(home.glob("server-*"))


def test_only_the_run_can_talk_to_its_private_server(home: Path) -> None:
    """Its password is in no place where another user of the machine, or whoever gets the log, could read it."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    told: list[dict[str, Any]] = []

    def do(job: Any) -> None:
        password = str(PREFECT_API_AUTH_STRING.value())
        (server,) = (p for p in psutil.Process().children() if "ss4d.pipelines.prefect_server" in p.cmdline())
        (folder,) = home.glob("server-*")
        with httpx.Client(base_url=f"{PREFECT_API_URL.value()}/", trust_env=False) as client:
            ways = {"nobody": None, "another": ("ss4d", "guess"), "the run": tuple(password.split(":"))}
            found = {who: client.get("admin/version", auth=auth).status_code for who, auth in ways.items()}
            found["change"] = client.post("flows/", json={"name": "mine"}).status_code
        visible = [*server.cmdline(), *server.environ().values(), *os.environ.values()]
        found["said"] = [text for text in visible if password in text]
        found["written"] = [p.name for p in home.rglob("*") if p.is_file() and password.encode() in p.read_bytes()]
        found["mode"] = stat.filemode(folder.stat().st_mode)
        told.append({**found, "length": len(password)})

    job = SimpleNamespace(step=SimpleNamespace(stage="slat", ref=ArtifactRef("slat", "0" * 64)), inputs={})
    prefect(Schedule("clip", [job], do, lambda: None, home))  # type: ignore[list-item]
    (found,) = told
    assert found.pop("length") > 40
    assert found == {
        "nobody": 401,
        "another": 401,
        "the run": 200,
        "change": 401,
        "said": [],
        "written": [],
        "mode": "drwx------",
    }


def test_each_private_server_has_a_password_of_its_own(tmp_path: Path) -> None:
    assert LocalServer(tmp_path).password != LocalServer(tmp_path).password


def test_a_server_of_another_container_keeps_its_folder(tmp_path: Path) -> None:
    """Its process has a number that means another one here, or none."""
    host = owned_name().split("-", 3)[3]
    theirs, dead = (
        tmp_path / f"server-{digit * 16}-1-{pid}-{name}"
        for digit, pid, name in (("0", 7, f"other{host}"), ("1", 4194303, host))
    )
    for folder in (theirs, dead):
        folder.mkdir()
    with LocalServer(tmp_path):
        assert (theirs.exists(), dead.exists(), len(list(tmp_path.glob("server-*")))) == (True, False, 2)
    assert list(tmp_path.glob("server-*")) == [theirs]
