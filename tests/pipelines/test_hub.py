"""Models of the hub: what is fetched, which commit, without network, and what is said when it cannot be had."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from ss4d.pipelines.hub import Hub, HubFiles
from ss4d.stages.errors import ModelError

if TYPE_CHECKING:
    from tests.helpers.fake_hub import FakeHub, Repository

pytest_plugins = ["tests.helpers.fake_hub"]

NAME = "org/model"
WEIGHTS = b"weights" * 1000
FILES = {"pipeline.json": b"{}", "ckpts/a.json": b'{"name": 1}', "ckpts/a.safetensors": WEIGHTS}


@pytest.fixture
def repository(fake_hub: "FakeHub") -> "Repository":
    """A repository of three files."""
    return fake_hub.new(NAME, FILES)


def files(revision: str | None = None) -> HubFiles:
    """As a new process has them."""
    return Hub({NAME: revision} if revision else {}).repository(NAME)


def content(found: Path | None) -> bytes:
    assert found is not None
    return found.read_bytes()


def test_a_file_is_fetched_once_and_then_found_without_a_request(fake_hub: "FakeHub", repository: "Repository") -> None:
    first = files()
    assert {name: content(first.find(name)) for name in FILES} == FILES
    assert first.commit == repository.main
    assert fake_hub.fetched == set(FILES)
    fake_hub.asked.clear()
    assert {name: content(first.find(name)) for name in FILES} == FILES
    assert content(files(first.commit).find("ckpts/a.json")) == FILES["ckpts/a.json"]
    assert fake_hub.asked == []
    assert content(files().find("ckpts/a.json")) == FILES["ckpts/a.json"]
    assert fake_hub.asked == ["HEAD ckpts/a.json"]  # whether the branch has moved


def test_a_file_that_is_not_there_is_told_from_one_that_cannot_be_had(
    fake_hub: "FakeHub", repository: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    here = files()
    assert content(here.find("pipeline.json")) == b"{}"
    assert here.find("NOTICE.md") is None
    assert here.sha256("NOTICE.md") is None
    assert here.address("NOTICE.md") == "hub:org/model/NOTICE.md"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = files()
    assert content(again.find("pipeline.json")) == b"{}"
    assert again.find("NOTICE.md") is None
    for question in (again.find, again.sha256):
        with pytest.raises(ModelError, match=r"hub:org/model/ckpts/a\.json is not on this machine and HF_HUB_OFFLINE"):
            question("ckpts/a.json")
    assert repository.main == again.commit


def test_digests_are_the_hubs_until_a_file_is_here(
    fake_hub: "FakeHub", repository: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    here = files()
    assert here.sha256("ckpts/a.safetensors") == hashlib.sha256(WEIGHTS).digest()
    assert here.commit == repository.main
    assert fake_hub.fetched == set()
    assert here.sha256("ckpts/a.json") == hashlib.sha256(FILES["ckpts/a.json"]).digest()
    assert fake_hub.fetched == {"ckpts/a.json"}  # of small files the hub tells no such digest
    here.find("ckpts/a.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert files().sha256("ckpts/a.safetensors") == hashlib.sha256(WEIGHTS).digest()


def test_a_branch_that_moves_is_followed_by_new_commands_alone(repository: "Repository") -> None:
    first = files()
    assert content(first.find("pipeline.json")) == b"{}"
    begun = repository.main
    repository.commit({**FILES, "ckpts/a.json": b"moved", "ckpts/a.safetensors": b"moved"})
    assert content(first.find("ckpts/a.json")) == FILES["ckpts/a.json"]
    assert first.sha256("ckpts/a.safetensors") == hashlib.sha256(WEIGHTS).digest()
    assert content(first.find("ckpts/a.safetensors")) == WEIGHTS
    assert content(files(begun).find("ckpts/a.safetensors")) == WEIGHTS
    assert content(files().find("ckpts/a.safetensors")) == b"moved"


def test_a_download_that_breaks_off_is_no_file(
    fake_hub: "FakeHub", repository: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the package waits before it tries again
    fake_hub.cut.add("ckpts/a.safetensors")
    with pytest.raises(ModelError, match=r"hub:org/model/ckpts/a\.safetensors could not be downloaded whole"):
        files().find("ckpts/a.safetensors")
    fake_hub.cut.clear()
    assert content(files().find("ckpts/a.safetensors")) == WEIGHTS
    assert repository.main


def test_a_file_of_the_cache_that_was_damaged_is_named_and_fetched_again(repository: "Repository") -> None:
    found = files().find("ckpts/a.safetensors")
    assert found is not None
    blob = found.resolve()
    for damage in (WEIGHTS[:-1], b"x" * len(WEIGHTS)):
        blob.chmod(0o644)
        blob.write_bytes(damage)
        with pytest.raises(ModelError, match=rf"a\.safetensors is damaged: delete {blob}, and it is fetched again"):
            files(repository.main).find("ckpts/a.safetensors")
        blob.unlink()
        assert content(files(repository.main).find("ckpts/a.safetensors")) == WEIGHTS


def test_a_name_that_cannot_be_is_refused(fake_hub: "FakeHub") -> None:
    with pytest.raises(ModelError, match="'a/b/c' is not the name of a hub repository; write hub:ORG/NAME"):
        Hub().model("hub:a/b/c").find("pipeline.json")
    assert fake_hub.asked == []


def test_a_repository_that_is_closed_or_missing_is_a_sentence(
    fake_hub: "FakeHub", repository: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="the hub has no repository org/other, or it is private"):
        Hub().repository("org/other").find("pipeline.json")
    repository.token = "secret"
    for question in (files().find, files().sha256):
        with pytest.raises(ModelError, match="the hub has no repository org/model, or it is private"):
            question("ckpts/a.safetensors")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert content(files().find("pipeline.json")) == b"{}"
    assert files().sha256("ckpts/a.safetensors") == hashlib.sha256(WEIGHTS).digest()
    repository.gated = True
    for question in (files().find, files().sha256):
        with pytest.raises(ModelError, match="gives org/model only to those who accepted its terms"):
            question("ckpts/a.safetensors")
    repository.gated = False
    with pytest.raises(ModelError, match="hub repository org/model has no revision v9"):
        files("v9").find("pipeline.json")


def test_without_network_what_was_fetched_is_found(
    fake_hub: "FakeHub", repository: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    assert content(files().find("pipeline.json")) == b"{}"
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download._DEFAULT_RETRY_ON_EXCEPTIONS", ())  # it waits between tries
    assert content(files().find("pipeline.json")) == b"{}"
    for question in (files(repository.main).find, files(repository.main).sha256):
        with pytest.raises(ModelError, match=r"a\.safetensors is not on this machine and the hub cannot be reached"):
            question("ckpts/a.safetensors")
