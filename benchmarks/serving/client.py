"""A client that costs little, for it shares the server's cores: requests are ready-made bytes, answers are hardly parsed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TypeVar, cast

GIVE_UP_S = 10.0
"""How long a client waits for an answer."""
OK = 200
REFUSALS = (429, 503)
LOST = 0
"""Instead of a status: the connection was closed, or the client gave up."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request that is over."""

    sent_s: float
    """When it was sent, or should have been; on the monotonic clock."""
    finished_s: float
    status: int

    @property
    def latency_s(self) -> float:
        """How long the client waited."""
        return self.finished_s - self.sent_s


@dataclass(slots=True)
class Traffic:
    """Answers as they come in."""

    answers: list[Answer] = field(default_factory=list)
    in_flight: int = 0
    _waiters: list[asyncio.Future[float]] = field(default_factory=list)

    def sent(self) -> None:
        """A request is on its way."""
        self.in_flight += 1

    def over(self, sent_s: float, status: int) -> None:
        """It has been answered or lost."""
        self.in_flight -= 1
        answer = Answer(sent_s, time.monotonic(), status)
        self.answers.append(answer)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(answer.finished_s)
        self._waiters.clear()

    async def next_answer(self) -> float:
        """Wait for one more; when it came."""
        # A future that is there at once: an answer that comes before a task has begun to wait would be missed.
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        async with asyncio.timeout(GIVE_UP_S):
            return await waiter

    async def settle(self) -> None:
        """Wait for all that is in flight, within reason."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                while self.in_flight:
                    await self.next_answer()

    def between(self, begin_s: float, end_s: float) -> list[Answer]:
        """Those that came after `begin_s`, and not after `end_s`."""
        return [answer for answer in self.answers if begin_s < answer.finished_s <= end_s]


def post(body: bytes, content_type: str, path: str = "/v1/recognize") -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def status_when_whole(received: bytes | bytearray) -> int | None:
    """The status, once the whole answer has come. Answers without a `Content-Length` are not understood."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = received[:head_end].lower()
    length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]) if len(received) >= head_end + 4 + length else None


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._sent_s: float | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, but do not say so

    def send(self, request: bytes, sent_s: float | None = None) -> None:
        """Send a request; `sent_s` is when it should have been sent, if that was not now."""
        assert self._transport is not None
        self._sent_s = time.monotonic() if sent_s is None else sent_s
        self._traffic.sent()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Most answers come in one piece."""
        received: bytes | bytearray = data
        if self._received:
            self._received += data
            received = self._received
        status = status_when_whole(received)
        if status is None:
            if received is data:
                self._received += data
            return
        self._received.clear()
        self._over(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was due will not come."""
        self.lost = True
        self._over(LOST)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def _over(self, status: int) -> None:
        if self._sent_s is not None:
            sent_s, self._sent_s = self._sent_s, None
            self._traffic.over(sent_s, status)
            self.answered(status)

    def answered(self, status: int) -> None:
        """Called after each request; what to do next."""


AnyConnection = TypeVar("AnyConnection", bound=Connection)


async def connect(address: Address, connection: AnyConnection) -> AnyConnection:
    """Open it."""
    await asyncio.get_running_loop().create_connection(lambda: connection, *address)
    return connection
