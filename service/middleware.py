"""Pure ASGI middleware: limits while the body streams, and measurement of recognition requests."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import NOT_READY, Problem, body_too_large
from service.metrics import Metrics

RECOGNIZE_PATHS: Final = ("/v1/recognize", "/recognize")


class BodyLimit:
    """Refuses bodies above a limit: by their announced length before they are read, else while they arrive."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = announced.isdigit() and int(announced) > self.max_body_bytes
        seen_bytes = 0

        async def counting_receive() -> Message:
            nonlocal seen_bytes
            if too_large:  # before anything is read, so that a client that asks first (100-continue) sends nothing
                raise body_too_large(self.max_body_bytes)
            message = await receive()
            if message["type"] == "http.request":
                seen_bytes += len(message.get("body", b""))
                if seen_bytes > self.max_body_bytes:
                    raise body_too_large(self.max_body_bytes)
            return message

        await self.app(scope, counting_receive, send)


class Measure:
    """Counts and times recognition requests by status; other paths pass untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http" or scope["path"] not in RECOGNIZE_PATHS:
            await self.app(scope, receive, send)
            return
        status = 500  # what the server answers when the app raises
        answered = False

        async def noting_send(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
            await send(message)

        started_s = time.monotonic()
        self.metrics.requests_in_flight.inc()
        try:
            await self.app(scope, receive, noting_send)
        except asyncio.CancelledError:
            # The server's patience with requests in flight is over (PARSEQ_DRAIN_TIMEOUT_S, or a second signal).
            if answered:
                raise
            self.metrics.problems.labels(NOT_READY.slug).inc()
            problem = Problem(NOT_READY, "The server stopped before the request was answered. Send it again.")
            await problem.response()(scope, receive, noting_send)
        finally:
            self.metrics.requests_in_flight.dec()
            self.metrics.request_duration.labels(str(status)).observe(time.monotonic() - started_s)
