"""Clients that know what each of their requests must be answered, and look at every answer."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.wild_requests import WildRequest

PATIENCE_S = 60
MAX_PAUSE_S = 0.03
"""Before a client gives up: its crops are being decoded, wait, are read, or are answered by then."""
MAX_IDLE_S = 30
"""Less than `PARSEQ_KEEP_ALIVE_S`, or a request would meet a connection that is just being closed."""
KEPT_COMPLAINTS = 10


@dataclass(slots=True)
class Record:
    """What clients saw."""

    sent: int = 0
    left: int = 0
    """Clients that gave up on purpose, at a random moment."""
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    """Of answers with 200."""
    wrong: int = 0
    """Answers that are not those of their requests."""
    lost: int = 0
    """Requests without an answer."""
    doubled: int = 0
    """Bytes on a connection on which nothing was asked."""
    complaints: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def complain(self, what: object) -> None:
        if len(self.complaints) < KEPT_COMPLAINTS:
            self.complaints.append(f"{type(what).__name__}: {what}"[:400])


class Requests(Protocol):
    """Where requests come from."""

    def next(self) -> WildRequest: ...


@dataclass(slots=True)
class Line:
    """A connection that is kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_s: float = 0.0


class Crowd:
    """Posts requests, each with an id of its own; what comes back must carry that id and be one of the right answers.

    Args:
        address: Host and port of the service.
        requests: Where requests come from.
        leaving_share: Of requests whose client gives up.
        seed: Of the random moments.
    """

    def __init__(self, address: tuple[str, int], requests: Requests, leaving_share: float = 0.0, seed: int = 0) -> None:
        self.record = Record()
        self._address = address
        self._requests = requests
        self._leaving_share = leaving_share
        self._random = random.Random(seed)
        self._free: list[Line] = []
        self._ids = 0

    async def closed(self, clients: int, goes_on: Callable[[], bool]) -> None:
        """Clients that post again as soon as they have their answer; ends with the last answer."""

        async def client() -> None:
            while goes_on():
                await self._post()

        await asyncio.gather(*(client() for _ in range(clients)))
        await self._hang_up()

    async def answers_per_s(self, clients: int, seconds: float) -> float:
        """What so many clients get that do not wait."""
        started_s = time.monotonic()
        await self.closed(clients, lambda: time.monotonic() < started_s + seconds)
        return self.record.answered / (time.monotonic() - started_s)

    async def open(self, rate_per_s: float, seconds: float) -> None:
        """Posts at random moments (a Poisson process), whether or not there are answers; ends with the last answer."""
        due_s = time.monotonic()
        end_s = due_s + seconds
        async with asyncio.TaskGroup() as posts:
            while (due_s := due_s + self._random.expovariate(rate_per_s)) < end_s:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                posts.create_task(self._post())
        await self._hang_up()

    async def _post(self) -> None:
        request = self._requests.next()
        self._ids += 1
        self.record.sent += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._random.random() < self._leaving_share:
                    await self._leave(request)
                else:
                    await self._exchange(request, f"request-{self._ids}")
        except AssertionError as error:
            self.record.wrong += 1
            self.record.complain(error)
        except (OSError, EOFError, TimeoutError) as error:
            self.record.lost += 1
            self.record.complain(error)

    async def _exchange(self, request: WildRequest, request_id: str) -> None:
        line = await self._line()
        try:
            started_s = time.monotonic()
            line.writer.write(request.encoded(request_id))
            status, answered_id, body = await read_answer(line.reader)
            line.used_s = time.monotonic()
            self.record.statuses[status] += 1
            assert answered_id == request_id, f"the answer to {request_id} is that to {answered_id}"
            request.check(status, body)
        except BaseException:
            line.writer.transport.abort()
            raise
        if status == 200:
            self.record.latencies_s.append(line.used_s - started_s)
        self._free.append(line)

    async def _leave(self, request: WildRequest) -> None:
        content = request.encoded()
        line = await self._connect()
        cut = self._random.randrange(len(content)) if self._random.random() < 0.2 else len(content)
        line.writer.write(content[:cut])
        await asyncio.sleep(self._random.uniform(0, MAX_PAUSE_S))
        line.writer.transport.abort() if self._random.random() < 0.5 else line.writer.close()
        self.record.left += 1

    async def _line(self) -> Line:
        """The connection used last, or a new one; those that idled are closed, as the server soon would."""
        while self._free:
            line = self._free.pop()
            if time.monotonic() - line.used_s < MAX_IDLE_S:
                return line
            await self._check_silent(line)
        return await self._connect()

    async def _connect(self) -> Line:
        return Line(*await asyncio.open_connection(*self._address))

    async def _hang_up(self) -> None:
        """End the connections that are left."""
        while self._free:
            await self._check_silent(self._free.pop())

    async def _check_silent(self, line: Line) -> None:
        """End a connection; nothing may have come on it since its last answer."""
        line.writer.write_eof()
        if await line.reader.read():
            self.record.doubled += 1
        line.writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Status, request id and body of one answer.

    Raises:
        EOFError: the connection was closed before its end.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"\r\ncontent-length: (\d+)", head, re.I)
    request_id = re.search(r"\r\nx-request-id: (\S+)", head, re.I)
    assert length, head
    return int(head.split()[1]), request_id[1] if request_id else "", await reader.readexactly(int(length[1]))
