"""What the web application answers to strangers, to too much, and to what is not there; nothing is computed here."""

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message
from typer.testing import CliRunner

from ss4d.cli.main import app as command
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.serve.access import MOST_WORDS, with_token
from ss4d.pipelines.serve.app import Limits, Parts, Wish, serve_app
from ss4d.pipelines.serve.assets import Assets, file_name
from ss4d.pipelines.serve.check import Look
from ss4d.pipelines.serve.line import Line
from ss4d.pipelines.serve.submissions import RECORD, Submissions
from ss4d.pipelines.serve.worker import Making
from ss4d.pipelines.view.local_server import address_of, listen
from ss4d.stages.errors import InputError
from tests.helpers.waiting import wait_until

OWN = {"X-SS4D": "1"}
LIMITS = Limits(most_bytes=1000, most_seconds=10, most_kept=3)


class Eyes:
    """Finds a video in whatever is not called otherwise."""

    def look(self, path: Path, title: str) -> Look:
        if title == "text.mp4":
            raise InputError(f"{title} is not a video")
        return Look(64, 32, 8, b"picture of " + path.read_bytes()[:4])


def parts_of(folder: Path) -> Parts:
    """All that the application is made of; without a device nothing is ever made."""
    submissions = Submissions(folder / "submissions")
    making = Making(out=folder, config="tiny", seed=0, device="cpu")
    line = Line(submissions, making, (), [], most_waiting=2, most_seconds=60)
    return Parts(submissions, Eyes(), line, Assets(folder, submissions.folder), LIMITS)  # type: ignore[arg-type]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return parts_of(tmp_path)


@pytest.fixture
def client(parts: Parts) -> Iterator[TestClient]:
    with TestClient(serve_app(parts, None), base_url="http://127.0.0.1") as client:
        yield client


def hand_in(client: TestClient, title: str = "bird.mp4", content: bytes = b"film") -> str:
    answer = client.post("/clips", content=content, headers={**OWN, "X-Title": title})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_a_video_is_kept_with_its_picture_until_it_is_removed(client: TestClient, parts: Parts) -> None:
    id_ = hand_in(client, "a%20bird.mp4")
    told = client.get(f"/clips/{id_}").json()
    assert (told["title"], told["state"], told["frames"], told["stages"]) == ("a bird.mp4", "new", 8, [])
    assert client.get(f"/clips/{id_}/picture").content == b"picture of film"
    assert client.delete(f"/clips/{id_}", headers=OWN).status_code == 204
    assert client.get(f"/clips/{id_}").status_code == 404
    assert [path.name for path in parts.submissions.folder.iterdir()] == [".server"]


@pytest.mark.parametrize(
    ("title", "content", "status", "told"),
    [
        ("text.mp4", b"text", 422, "text.mp4 is not a video"),
        ("empty.mp4", b"", 422, "empty"),
        ("large.mp4", b"x" * 1001, 413, "larger than"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_kept(
    title: str, content: bytes, status: int, told: str, client: TestClient, parts: Parts
) -> None:
    answer = client.post("/clips", content=content, headers={**OWN, "X-Title": title})
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True)
    chunked = client.post("/clips", content=iter([content[:500], content[500:]]), headers={**OWN, "X-Title": title})
    assert chunked.status_code == status, "also if it does not say how much comes"
    assert [path.name for path in parts.submissions.folder.iterdir()] == [".server"]


def test_no_more_is_kept_and_no_more_wait_than_may(client: TestClient) -> None:
    ids = [hand_in(client) for _ in range(3)]
    assert client.post("/clips", content=b"film", headers=OWN).status_code == 507
    answers = [client.post(f"/clips/{id_}/start", json={}, headers=OWN) for id_ in (*ids[:2], ids[0], ids[2])]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429], "asked for twice, it waits once"
    assert [client.get(f"/clips/{id_}").json()["ahead"] for id_ in ids] == [0, 1, None]
    client.delete(f"/clips/{ids[0]}", headers=OWN)
    assert client.get(f"/clips/{ids[1]}").json()["ahead"] == 0


def test_a_click_is_a_pixel_of_the_first_frame(client: TestClient, parts: Parts) -> None:
    for point, pixel in (([0.5, 0.25], (32, 8)), ([1, 1], (63, 31)), (None, None)):
        id_ = hand_in(client)
        assert client.post(f"/clips/{id_}/start", json={"point": point}, headers=OWN).status_code == 202
        submission = parts.submissions.get(id_)
        assert submission is not None
        assert submission.point == pixel
        client.delete(f"/clips/{id_}", headers=OWN)
    id_ = hand_in(client)
    for wrong in ([2, 0], [0.5], "left", {"x": 1}):
        assert client.post(f"/clips/{id_}/start", json={"point": wrong}, headers=OWN).status_code == 422
    assert Wish().point is None


@pytest.mark.parametrize(
    "path",
    ["", "/picture", "/view/", "/view/frames/splats/0", "/files/spz", "/files/..%2f..%2fsubmission.json", "/video"],
)
def test_nothing_is_told_of_what_is_not_there_or_not_made(path: str, client: TestClient) -> None:
    assert client.get(f"/clips/{'0' * 32}{path}").status_code == 404
    assert client.get(f"/clips/%2e%2e{path}").status_code == 404
    answer = client.get(f"/clips/{hand_in(client)}{path}")
    assert answer.status_code in ((200,) if path in ("", "/picture") else (404, 409))


def test_changes_are_for_the_page_alone_and_answers_for_this_machine(client: TestClient) -> None:
    id_ = hand_in(client)
    for method, path in (("POST", "/clips"), ("POST", f"/clips/{id_}/start"), ("DELETE", f"/clips/{id_}")):
        assert client.request(method, path, content=b"film").status_code == 403
    assert client.get("/", headers={"Host": "rebound.example"}).status_code == 400
    page = client.get("/")
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.text


def test_a_request_that_hands_nothing_in_has_no_long_body(client: TestClient) -> None:
    path = f"/clips/{hand_in(client)}/start"
    assert client.post(path, content=b"{" * (MOST_WORDS + 1), headers=OWN).status_code == 413
    assert client.post(path, content=iter([b"{}"]), headers=OWN).status_code == 411, "who knows how much would come"
    assert client.post(path, json={}, headers=OWN).status_code == 202


def test_a_video_that_hardly_comes_holds_no_place(
    client: TestClient, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ss4d.pipelines.serve.app.PATIENCE", 0.2)
    monkeypatch.setattr("ss4d.pipelines.serve.app.LEAST_RATE", 1000)

    def drips(pieces: int, pause: float) -> Iterator[bytes]:
        for _ in range(pieces):
            time.sleep(pause)
            yield b"x" * 50

    assert client.post("/clips", content=drips(10, 0.1), headers=OWN).status_code == 408
    assert client.post("/clips", content=drips(10, 0.01), headers=OWN).status_code == 200
    assert len(list(parts.submissions.folder.iterdir())) == 2


def test_who_goes_away_in_the_middle_leaves_nothing(parts: Parts) -> None:
    comes = iter([{"type": "http.request", "body": b"fi", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(comes)

    async def send(_message: Message) -> None:
        """Nobody hears it."""

    headers = [(b"host", b"127.0.0.1"), (b"x-ss4d", b"1")]
    request = {"type": "http", "method": "POST", "path": "/clips", "query_string": b"", "headers": headers}
    asyncio.run(serve_app(parts, None)(request, receive, send))
    assert [path.name for path in parts.submissions.folder.iterdir()] == [".server"]


def test_a_name_is_one_line_of_letters(client: TestClient, parts: Parts) -> None:
    for given, kept in (
        ("a%0A%1B[2J%E2%80%AEgpj.mp4", "a\ufffd\ufffd[2J\ufffdgpj.mp4"),
        ("..%2F%5C%3Cb%3E.mp4", "\\<b>.mp4"),
        ("%FF%ED%A0%80.mp4", "\ufffd\ufffd\ufffd\ufffd.mp4"),
        ("%00", "\ufffd"),
        ("%2F", "video"),
        ("a" * 1000, "a" * 120),
    ):
        id_ = hand_in(client, given)
        assert client.get(f"/clips/{id_}").json()["title"] == kept
        client.delete(f"/clips/{id_}", headers=OWN)


def test_a_full_disk_is_told_and_the_line_goes_on(
    client: TestClient, parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = hand_in(client)

    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("ss4d.pipelines.serve.submissions.write_bytes", full)
    answer = client.post("/clips", content=b"film", headers=OWN)
    assert (answer.status_code, "disk is full" in answer.json()["detail"]) == (507, True)
    assert str(parts.submissions.folder) not in answer.text, "a stranger need not know the folder"
    changed = parts.submissions.change(id_, state="running")
    assert changed is not None
    assert changed.state == "running", "what becomes of it is known, even if it cannot be written"
    assert "disk is full" in caplog.text


def has_failed(submissions: Submissions, number: int) -> bool:
    states = [json.loads(path.read_bytes())["state"] for path in submissions.folder.glob(f"*/{RECORD}")]
    return states == ["failed"] * number


def test_a_process_that_cannot_be_started_does_not_stop_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(*_given: object, name: str) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("ss4d.pipelines.serve.line.Child", child)
    submissions = Submissions(tmp_path / "submissions")
    making = Making(out=tmp_path, config="tiny", seed=0, device="cpu")
    line = Line(submissions, making, (), [None], most_waiting=2, most_seconds=60)
    for done in (1, 2):
        with submissions.arriving() as place:
            line.enter(submissions.add(place, "a.mp4", 8, 8, 1).id, None)
        assert wait_until(partial(has_failed, submissions, done), 10)
    line.close()


def test_a_format_that_cannot_hold_an_asset_is_told(
    client: TestClient, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise InputError("SPZ holds at most 10 Gaussians")

    monkeypatch.setattr(Assets, "downloads", lambda *_: ["spz"])
    monkeypatch.setattr(Assets, "download", refuse)
    id_ = hand_in(client)
    parts.submissions.change(id_, state="done")
    answer = client.get(f"/clips/{id_}/files/spz")
    assert (answer.status_code, answer.json()["detail"]) == (422, "SPZ holds at most 10 Gaussians")


def test_with_a_token_only_those_who_have_it_come_in(parts: Parts) -> None:
    app = serve_app(parts, "secret")
    stranger, friend = (TestClient(app, base_url="http://192.0.2.7") for _ in range(2))
    for path in ("/", f"/clips/{'0' * 32}", "/?token=guess", "/?token="):
        assert stranger.get(path, follow_redirects=False).status_code == 401
    assert stranger.post("/clips?token=secret", content=b"film", headers=OWN).status_code == 401
    answer = friend.get(with_token("http://192.0.2.7/", "secret"), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert friend.get("/").status_code == 200
    assert friend.get("/?token=secret", follow_redirects=False).status_code == 303, "it never stays in the address"
    assert hand_in(friend)


def test_a_folder_has_one_server_and_forgets_nothing(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    client = TestClient(serve_app(parts, None), base_url="http://127.0.0.1")
    ids = [hand_in(client) for _ in range(3)]
    for id_ in ids[:2]:
        client.post(f"/clips/{id_}/start", json={"point": [0, 0]}, headers=OWN)
    parts.submissions.change(ids[1], state="running")
    (parts.submissions.folder_of(ids[2]) / RECORD).write_text("{}")
    with pytest.raises(ConfigError, match="another server has"):
        Submissions(tmp_path / "submissions")
    parts.submissions.close()
    again = parts_of(tmp_path)
    assert [again.line.ahead_of(id_) for id_ in ids] == [0, 1, None]
    kept = again.submissions.get(ids[1])
    assert kept is not None
    assert (kept.state, kept.point) == ("waiting", (0, 0))
    assert again.submissions.get(ids[2]) is None, "what is damaged is no submission"


def test_downloads_of_two_formats_never_have_one_name() -> None:
    made = {"ply": "ply.zip", "usd": "usd.zip", "glb": "mesh.glb", "gaussian_glb": "g.glb", "4d.zip": "a.4d.zip"}
    names = [file_name("a bird.mp4", name, Path(file)) for name, file in made.items()]
    assert names == ["a bird.ply.zip", "a bird.usd.zip", "a bird.glb", "a bird.gaussian_glb.glb", "a bird.4d.zip"]


def test_an_address_is_one_that_others_can_open() -> None:
    for host, name in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", socket.gethostname())):
        with listen(0, host) as listener:
            assert with_token(address_of(listener), "a b") == f"http://{name}:{listener.getsockname()[1]}/?token=a+b"


def test_a_mistake_is_told_before_anything_starts(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for words, told in (
            (["--set", "slat.color=red"], "slat.color"),
            (["--port", str(taken.getsockname()[1])], "cannot be used"),
            (["--host", "192.0.2.7"], "192.0.2.7 is no address of this machine"),
            (["--host", "999.1.1.1"], "999.1.1.1 is no address of this machine"),
            (["--out", str(film)], "is there already, and no folder"),
        ):
            ended = CliRunner().invoke(command, ["serve", "--out", str(tmp_path / "out"), "--no-open", *words])
            assert (ended.exit_code, ended.output.count("\n")) == (1, 1), ended.output
            assert told in ended.output
    assert not (tmp_path / "out").exists()
