"""Whole answers, and how a problem becomes one: the only place where problems are counted and turned into answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Send

from service.core.metrics import Metrics
from service.core.recognizer import CropResult
from service.errors import INVALID_REQUEST, Problem
from service.http.head import Head
from service.process.request import RequestContext

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
REQUEST_ID_HEADER: Final = b"x-request-id"
GUARDS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""Headers of every answer: nobody shall guess its type, or keep what was read on an image."""
MAX_ERRORS_TOLD: Final = 10

Headers = tuple[tuple[bytes, bytes], ...]

_encode_json: Final = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(slots=True)
class Answer:
    """A whole answer over HTTP."""

    status: int
    body: bytes
    media_type: str
    headers: Headers = ()
    """Besides length, type and the headers of every answer; names in lower case."""

    def all_headers(self, context: RequestContext) -> list[tuple[bytes, bytes]]:
        """Those of every answer included.

        Args:
            context: Of the request, whose id the answer carries.
        """
        return [
            *self.headers,
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", self.media_type.encode("latin-1")),
            (REQUEST_ID_HEADER, context.request_id.encode("ascii")),
            *GUARDS,
        ]

    async def send(self, head: Head, send: Send) -> None:
        """Send it by ASGI.

        Args:
            head: Of the request, whose id the answer carries.
            send: The ASGI callable.
        """
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers(head.context)})
        await send({"type": "http.response.body", "body": self.body})


def problem_document(problem: Problem) -> Answer:
    """The answer to a problem as RFC 9457 has it."""
    headers = tuple([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()])
    return Answer(problem.status, _encode_json(problem.document()).encode(), PROBLEM_MEDIA_TYPE, headers)


class Problems:
    """Turns problems into answers, and counts them.

    Args:
        metrics: Where they are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answer(self, problem: Problem, word: Callable[[Problem], Answer] = problem_document) -> Answer:
        """The answer that tells a problem; counts it.

        Args:
            problem: Of a whole request.
            word: Writes the problem document in the dialect's form.
        """
        self._metrics.problem_told(problem.kind.slug)
        return word(problem)

    def count_within(self, results: Iterable[CropResult]) -> None:
        """Count the problems of single crops that an answer tells."""
        for result in results:
            if isinstance(result.reading, Problem):
                self._metrics.problem_told(result.reading.kind.slug)


def invalid_request(errors: Sequence[Any]) -> Problem:
    """The problem of a request that can be parsed but is not valid; `errors` as pydantic lists them."""
    told = [
        {"location": ".".join(str(part) for part in error["loc"]), "message": error["msg"]}
        for error in errors[:MAX_ERRORS_TOLD]
    ]
    first = told[0]
    detail = f"{first['location']}: {first['message']}" if first["location"] else first["message"]
    return Problem(INVALID_REQUEST, detail, extra={"errors": told})
