"""How old what a client has not read is taken to be."""

from __future__ import annotations

import asyncio
from typing import cast

from service.http.connection.slow_readers import Backlog, SlowReaders
from service.http.connection.whole_writes import WholeAnswers
from tests.fakes import until


class Wire:
    """A transport as far as a backlog looks at it."""

    def __init__(self) -> None:
        self.sent_bytes = self.waiting_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def write(self, n_bytes: int) -> None:
        self.sent_bytes += n_bytes
        self.waiting_bytes += n_bytes

    def read(self, n_bytes: int) -> None:
        self.waiting_bytes -= n_bytes


def watched() -> tuple[Wire, Backlog]:
    wire = Wire()
    return wire, Backlog(cast(WholeAnswers, wire))


def test_what_is_read_is_no_backlog() -> None:
    wire, backlog = watched()
    for now_s in range(5):
        wire.write(100)
        wire.read(100)
        assert backlog.age_s(now_s) == 0


def test_what_is_not_read_grows_old() -> None:
    wire, backlog = watched()
    wire.write(100)
    assert [backlog.age_s(now_s) for now_s in (10, 12, 15)] == [0, 2, 5]
    wire.write(100)
    assert backlog.age_s(16) == 6
    wire.read(200)
    assert backlog.age_s(17) == 0


def test_a_byte_now_and_then_does_not_make_it_younger_but_all_of_it_does() -> None:
    wire, backlog = watched()
    wire.write(100)
    backlog.age_s(0)
    for now_s in range(1, 6):
        wire.read(1)
        wire.write(10)
        assert backlog.age_s(now_s) == now_s
    wire.read(95)
    assert backlog.age_s(6) == 0
    assert wire.waiting_bytes
    assert backlog.age_s(8) == 2


def test_connections_are_looked_at_as_long_as_there_are_any() -> None:
    class Client:
        looks = 0

        def look_at_backlog(self, now_s: float) -> None:
            self.looks += 1

    async def watch() -> None:
        loop, client = asyncio.get_running_loop(), Client()
        connections, readers = {client}, SlowReaders(0.01)
        for _ in range(2):
            readers.watch(connections, loop)
            readers.watch(connections, loop)
        await until(lambda: client.looks > 3)
        connections.clear()
        await asyncio.sleep(0.05)
        looks = client.looks
        await asyncio.sleep(0.05)
        assert client.looks == looks

    asyncio.run(watch())
