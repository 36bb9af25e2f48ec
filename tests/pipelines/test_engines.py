"""Which engine does a run's jobs, and what it does about errors that can pass."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ss4d.pipelines import engines
from ss4d.pipelines.engines import Schedule, chosen_engine, direct

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
