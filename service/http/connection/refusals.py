"""Answers that the HTTP server gives by itself, without the app."""

from __future__ import annotations

import http
from collections.abc import Sequence

from service.errors import PROBLEM_MEDIA_TYPE, Problem
from service.http.gates.request_ids import GUARDS, REQUEST_ID_HEADER
from service.process.request import RequestContext


def refusal(problem: Problem, context: RequestContext, default_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The whole answer, after which the connection is closed.

    Args:
        problem: That is told.
        context: Of the request, as far as its head has come.
        default_headers: Of every answer.
    """
    body = problem.body()
    headers = [
        *default_headers,
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (REQUEST_ID_HEADER, context.request_id.encode("ascii")),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        *GUARDS,
    ]
    status = b"HTTP/1.1 %d %b" % (problem.status, http.HTTPStatus(problem.status).phrase.encode())
    return b"\r\n".join([status, *(b"%b: %b" % header for header in headers), b"", body])
