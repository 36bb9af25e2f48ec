"""Who may use a server that more than this machine can reach: whoever has its token, once it is shown in an address."""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

COOKIE, PARAMETER = "ss4d_token", "token"
OWN_HEADER = "x-ss4d"  # of requests that change something: pages from elsewhere cannot set it unasked
TOKEN_BYTES = 24
HAND_IN = "/clips"  # where videos are taken in, and bounded
MOST_WORDS = 1 << 12  # bytes of any other request
CHANGES = ("POST", "PUT", "DELETE", "PATCH")
Next = Callable[[Request], Awaitable[Response]]


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def with_token(address: str, token: str | None) -> str:
    """The address that lets a browser in."""
    return address if token is None else f"{address}?{urlencode({PARAMETER: token})}"


def guard(app: FastAPI, token: str | None) -> None:
    """Refuses changes that another page asks for, long words, and, if there is a token, whoever does not have it."""

    @app.middleware("http")
    async def _let_in(request: Request, call_next: Next) -> Response:
        if request.method in CHANGES and OWN_HEADER not in request.headers:
            return PlainTextResponse("Only the page itself may do this.", status_code=403)
        if token is not None and request.method == "GET" and _is(token, request.query_params.get(PARAMETER, "")):
            answer = RedirectResponse("/", status_code=303)  # so that the token does not stay in the address
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
            return answer
        if token is not None and not _is(token, request.cookies.get(COOKIE, "")):
            return PlainTextResponse("Open the address that the server said when it started.", status_code=401)
        if request.url.path != HAND_IN:
            if "transfer-encoding" in request.headers:
                return PlainTextResponse("How much comes must be said.", status_code=411)
            if int(request.headers.get("content-length") or 0) > MOST_WORDS:
                return PlainTextResponse("That is too much.", status_code=413)
        return await call_next(request)


def _is(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode())
