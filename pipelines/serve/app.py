"""The web application: takes videos, has assets made of them, shows how it goes and what came out."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unicodedata import category
from urllib.parse import unquote

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from ss4d.pipelines.errors import FULL, ConfigError, explain
from ss4d.pipelines.serve.access import HAND_IN, guard
from ss4d.pipelines.serve.assets import Assets, file_name
from ss4d.pipelines.serve.check import Checker
from ss4d.pipelines.serve.line import Line
from ss4d.pipelines.serve.page_files import app_page
from ss4d.pipelines.serve.submissions import MOST_TITLE, PICTURE, VIDEO, Submission, Submissions
from ss4d.pipelines.view.local_server import LOCAL_NAMES, guarded_app
from ss4d.pipelines.view.run_view import frame_answer
from ss4d.stages.errors import InputError
from ss4d.stages.export.viewer_page import viewer_page
from ss4d.storage.errors import StoreError

LOG = logging.getLogger("ss4d.serve")
NO_LETTER = "\N{REPLACEMENT CHARACTER}"
ARRIVING = 4  # videos that may be on their way at once
PATIENCE = 30.0  # seconds that one of them may take, and ...
LEAST_RATE = 1 << 14  # ... bytes that each second more must have brought


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused.

    Attributes:
        most_bytes: of a video.
        most_seconds: that a video lasts.
        most_kept: submissions that are kept.
    """

    most_bytes: int
    most_seconds: float
    most_kept: int


class Wish(BaseModel):
    """What a user wants made: `point` is a place on the object in the first frame, in shares of its sides."""

    point: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] | None = None


@dataclass(frozen=True)
class Parts:
    """What the application is made of."""

    submissions: Submissions
    checker: Checker
    line: Line
    assets: Assets
    limits: Limits


def serve_app(parts: Parts, token: str | None) -> FastAPI:
    """The application; with a token, only for those who have it."""
    app = guarded_app(LOCAL_NAMES if token is None else ("*",), framed=True)
    guard(app, token)
    page = app_page(parts.limits.most_bytes, parts.limits.most_seconds)

    @app.get("/")
    def _page() -> Response:
        return HTMLResponse(page)

    app.post(HAND_IN)(_arrivals(parts))
    _add_clip_routes(app, parts)
    _add_asset_routes(app, parts)

    @app.exception_handler(StoreError)
    def _gone(_request: Request, error: StoreError) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=410)

    @app.exception_handler(InputError)
    def _unfit(_request: Request, error: InputError) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=422)  # a format that cannot hold this asset

    @app.exception_handler(ClientDisconnect)
    def _left(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # which nobody waits for

    @app.exception_handler(OSError)
    def _unwritten(_request: Request, error: OSError) -> Response:
        LOG.warning("a request could not be answered: %s", explain(error))
        if error.errno in FULL:
            return JSONResponse({"detail": "The server's disk is full: try again later."}, status_code=507)
        return JSONResponse({"detail": "The server cannot reach its files."}, status_code=500)

    return app


def _arrivals(parts: Parts) -> Callable[..., Any]:
    """Takes in a video: the request's body is the file, and a header has its name."""
    limits, room = parts.limits, asyncio.Semaphore(ARRIVING)

    async def receive(request: Request, x_title: Annotated[str, Header()] = "video") -> dict[str, str]:
        title = _one_line(Path(unquote(x_title)).name) or "video"
        if room.locked():
            raise HTTPException(503, "Too many videos are on their way: try again in a minute.")
        if len(parts.submissions) >= limits.most_kept:
            raise HTTPException(507, f"{limits.most_kept} videos are kept here already: remove one first.")
        async with room:
            with parts.submissions.arriving() as folder:
                await _stored(request, folder / VIDEO, limits.most_bytes)
                try:
                    look = await asyncio.to_thread(parts.checker.look, folder / VIDEO, title)
                except InputError as error:
                    raise HTTPException(422, str(error)) from error
                (folder / PICTURE).write_bytes(look.picture)
                return {"id": parts.submissions.add(folder, title, look.width, look.height, look.frames).id}

    return receive


def _one_line(name: str) -> str:
    """A file's name without what would break or turn a line, which somebody may take for one of the server's own."""
    odd = ("Cc", "Cf", "Zl", "Zp")
    return "".join(NO_LETTER if category(letter) in odd else letter for letter in name[:MOST_TITLE])


async def _stored(request: Request, path: Path, most: int) -> None:
    """Writes the body of a request into a file."""
    refusal = HTTPException(413, f"The video is larger than the {most / 2**20:g} MB allowed here.")
    if int(request.headers.get("content-length") or 0) > most:
        raise refusal
    size, begun = 0, asyncio.get_running_loop().time()
    try:
        with path.open("xb") as file:
            async with asyncio.timeout_at(begun + PATIENCE) as limit:
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise refusal
                    file.write(part)
                    limit.reschedule(begun + PATIENCE + size / LEAST_RATE)
    except TimeoutError as error:
        raise HTTPException(408, "The video comes too slowly.") from error
    if not size:
        raise HTTPException(422, "The file is empty.")


def _add_clip_routes(app: FastAPI, parts: Parts) -> None:
    """What becomes of a submission."""

    @app.get("/clips/{id_}")
    def _state(id_: str) -> dict[str, Any]:
        submission = _known(parts, id_)
        return {
            **submission.model_dump(include={"id", "title", "state", "message", "frames", "point", "width", "height"}),
            "ahead": parts.line.ahead_of(id_),
            "stages": parts.assets.stages(submission, parts.line.position(id_)),
            "downloads": parts.assets.downloads(submission) if submission.state == "done" else [],
        }

    @app.get("/clips/{id_}/picture")
    def _picture(id_: str) -> Response:
        _known(parts, id_)
        return FileResponse(parts.submissions.folder_of(id_) / PICTURE, media_type="image/webp")

    @app.post("/clips/{id_}/start")
    def _start(id_: str, wish: Wish) -> Response:
        submission = _known(parts, id_)
        try:
            parts.line.enter(id_, _pixel(wish, submission))
        except ConfigError as error:
            raise HTTPException(429, str(error)) from error
        return Response(status_code=202)

    @app.delete("/clips/{id_}")
    def _remove(id_: str) -> Response:
        submission = _known(parts, id_)
        parts.line.leave(id_)
        parts.submissions.remove(id_)
        parts.assets.forget(submission)
        return Response(status_code=204)


def _add_asset_routes(app: FastAPI, parts: Parts) -> None:
    """What came out."""

    @app.get("/clips/{id_}/view/")
    def _view(id_: str) -> Response:
        return HTMLResponse(viewer_page(parts.assets.frames(_done(parts, id_)).scene, "", served=True))

    @app.get("/clips/{id_}/view/frames/{layer}/{number}")
    def _frame(id_: str, layer: str, number: int) -> Response:
        return frame_answer(parts.assets.frames(_done(parts, id_)), layer, number)

    @app.get("/clips/{id_}/files/{name}")
    def _file(id_: str, name: str) -> Response:
        submission = _done(parts, id_)
        if name not in parts.assets.downloads(submission):
            raise HTTPException(404)
        path = parts.assets.download(submission, name)
        called = file_name(submission.title, name, path)
        return FileResponse(path, media_type="application/octet-stream", filename=called)


def _known(parts: Parts, id_: str) -> Submission:
    submission = parts.submissions.get(id_)
    if submission is None:
        raise HTTPException(404, "There is no such video here.")
    return submission


def _done(parts: Parts, id_: str) -> Submission:
    submission = _known(parts, id_)
    if submission.state != "done":
        raise HTTPException(409, "Its asset is not made yet.")
    return submission


def _pixel(wish: Wish, submission: Submission) -> tuple[int, int] | None:
    """The pixel at a place."""
    if wish.point is None:
        return None
    x, y = (
        min(int(share * side), side - 1)
        for share, side in zip(wish.point, (submission.width, submission.height), strict=True)
    )
    return x, y
