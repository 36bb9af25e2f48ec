"""A dataset may be anybody's: nothing connects to an address that only its description names."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.dataset.cluster.shard import ShardWork, do_shard
from ss4d.pipelines.dataset.layout import Dataset, create_dataset, open_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.errors import ConfigError
from ss4d.storage.manifest import write_rows
from ss4d.storage.store import open_store
from tests.helpers.dataset_history import row
from tests.helpers.s3_server import running

URL = "s3://bucket/birds"


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Dataset, socket.socket]]:
    """A dataset that names an object store, and the server of that store, which answers nobody."""
    dataset = create_dataset(tmp_path / "birds", URL)
    write_rows(dataset.manifest, Row, [row("a")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        yield dataset, server


def said(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["dataset", *map(str, words)], env={"COLUMNS": "300"})
    return done.exit_code, " ".join(done.output.split())


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("command", ["run", "plan", "export", "catalog rebuild"])
def test_what_would_connect_asks_first(strange: tuple[Dataset, socket.socket], tmp_path: Path, command: str) -> None:
    dataset, server = strange
    more = {"export": [tmp_path / "assets"]}.get(command, [])
    code, text = said(*command.split(), dataset.folder, *more)
    assert code == 1
    assert f"nothing connects before you ask for it: --store {URL}" in text
    assert not was_asked(server)


@pytest.mark.parametrize("command", ["failures", "catalog", "retry"])
def test_what_needs_no_results_needs_no_address(strange: tuple[Dataset, socket.socket], command: str) -> None:
    dataset, server = strange
    assert said(command, dataset.folder)[0] == 0
    assert not was_asked(server)


def test_only_the_address_that_the_dataset_has_can_be_given(strange: tuple[Dataset, socket.socket]) -> None:
    dataset, server = strange
    assert dataset.location() == open_dataset(dataset.folder, URL).location() == URL
    with pytest.raises(ConfigError, match=f"has its store at {URL}, and cannot have it at s3://other"):
        open_dataset(dataset.folder, "s3://other")
    code, text = said("plan", dataset.folder, "--store", f"{URL}x")
    assert code == 1
    assert "cannot have it at" in text
    assert not was_asked(server)


def test_the_address_that_is_given_is_asked(tmp_path: Path) -> None:
    with running() as server:
        url = server.new_url()
        dataset = create_dataset(tmp_path / "birds", url)
        write_rows(dataset.manifest, Row, [row("a")])
        code, text = said("plan", dataset.folder, "--store", url)
        assert code == 0, text
        assert "1 clips have something to do" in text
        open_store(url).begin_deletion()
        code, text = said("catalog", "rebuild", dataset.folder, "--store", url)
        assert code == 0, text
        assert f"0 artifacts of 0 clips are in {url}" in text


def test_a_shard_goes_where_its_submission_was_told(strange: tuple[Dataset, socket.socket]) -> None:
    """Through JSON, as engines pass it on."""
    dataset, _ = strange
    for store, words in ((None, "before you ask for it"), (f"{URL}x", "cannot have it at")):
        work = ShardWork.model_validate_json(ShardWork(dataset=dataset.folder, store=store).model_dump_json())
        ended = do_shard(work, "1/1", None)  # type: ignore[arg-type]  # it comes to nothing to watch
        assert not ended.completed
        assert words in ended.message
    assert ShardWork(dataset=dataset.folder, store=URL).options("1/1").store == URL
