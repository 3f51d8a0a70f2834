"""Which request this is: the id that goes with it through answers and log lines, and the trace it belongs to.

A client's `X-Request-Id` is kept when it is sane. Else the trace id of a valid W3C `traceparent` is the id, else one is made.
"""

from __future__ import annotations

import random
import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.process.request import RequestContext, current_request

REQUEST_ID_HEADER: Final = b"x-request-id"
TRACEPARENT_HEADER: Final = b"traceparent"
MAX_REQUEST_ID_LENGTH: Final = 128
CLIENT_KEY: Final = "parseq.client"
"""In the scope of a recognition request: whose it is, the digest of an API key or an address, for sharing fairly."""

_SANE_ID: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_LENGTH)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_random: Final = random.Random()
GUARDS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""On every answer: nobody is to guess at its type, or to keep what was read on an image."""


def context_of(headers: list[tuple[bytes, bytes]]) -> RequestContext:
    """The context of a request with these headers, their names in lower case."""
    given: bytes | None = None
    traceparents: list[bytes] = []
    for name, value in headers:
        if name == REQUEST_ID_HEADER:
            given = value
        elif name == TRACEPARENT_HEADER:
            traceparents.append(value)
    trace_id = _trace_id(traceparents[0]) if len(traceparents) == 1 else None
    if given is not None and _SANE_ID.fullmatch(given):
        return RequestContext(given.decode("ascii"), trace_id)
    return RequestContext(trace_id or f"{_random.getrandbits(128):032x}", trace_id)


def _trace_id(traceparent: bytes) -> str | None:
    """The trace id, or `None`: the specification has servers ignore what is not valid, and read versions to come."""
    match = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    if match is None or (match["version"] == b"00" and match["more"] is not None):
        return None
    return match["trace_id"].decode("ascii")


class RequestIds:
    """ASGI middleware, the outermost one: gives each request its context, and each answer the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = context_of(scope["headers"])
        # Never reset: the server runs each request in a task of its own, and logs what escapes from here in the same task.
        current_request.set(context)
        header = (REQUEST_ID_HEADER, context.request_id.encode("ascii"))

        async def marking_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header, *GUARDS]
            await send(message)

        await self.app(scope, receive, marking_send)
