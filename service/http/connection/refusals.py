"""What the HTTP server refuses by itself: the wording, and answers that bypass the app."""

from __future__ import annotations

import http
from collections.abc import Sequence
from typing import Final

from service.errors import HEAD_TOO_LARGE, NO_ROOM_FOR_BODY, REQUEST_TIMEOUT, TOO_MANY_CONNECTIONS, Problem
from service.http.problems import Answer
from service.process.request import RequestContext

CLOSE: Final = (b"connection", b"close")


def whole(
    answer: Answer, context: RequestContext, default_headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool
) -> bytes:
    """The bytes of a whole answer.

    Args:
        answer: Tells the problem.
        context: Of the request, from the headers that have come.
        default_headers: The headers of every answer.
        keep_alive: Whether the connection stays open after it.
    """
    headers = [
        *default_headers,
        *answer.all_headers(context),
        *([] if keep_alive or CLOSE in answer.headers else [CLOSE]),
    ]
    status = b"HTTP/1.1 %d %b" % (answer.status, http.HTTPStatus(answer.status).phrase.encode())
    return b"\r\n".join([status, *[b"%b: %b" % header for header in headers], b"", answer.body])


def head_too_large(max_bytes: int) -> Problem:
    """The limit is on path and headers together."""
    return Problem(HEAD_TOO_LARGE, f"Path and headers may have {max_bytes} bytes at most (PARSEQ_MAX_HEAD_BYTES).")


def too_many_headers(most: int) -> Problem:
    """The limit is on headers and trailers."""
    return Problem(HEAD_TOO_LARGE, f"A request may have {most} headers at most (PARSEQ_MAX_HEADERS).")


def too_slow(timeout_s: float) -> Problem:
    """The request did not arrive in time."""
    detail = f"The request did not arrive within {timeout_s:g} s (PARSEQ_RECEIVE_TIMEOUT_S). Send it at once."
    return Problem(REQUEST_TIMEOUT, detail)


def too_many_connections(most: int) -> Problem:
    """There is no room for this connection, or it makes room for another."""
    detail = f"The server has {most} connections already (PARSEQ_MAX_CONNECTIONS). Keep those you have, or try again."
    return Problem(TOO_MANY_CONNECTIONS, detail, headers={"Retry-After": "1"})


def no_room_for_body() -> Problem:
    """What has come of the body is thrown away."""
    detail = "The server holds too many bodies of requests at once (PARSEQ_MAX_BODIES_BYTES). Try again."
    return Problem(NO_ROOM_FOR_BODY, detail, headers={"Retry-After": "1"})
