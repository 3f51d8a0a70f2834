"""Who sends requests ahead waits for its turn, and who is idle is not kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.http.connection.pacing import EVERY_S, Pace
from service.http.connection.protocol import MAX_UNANSWERED, HttpProtocol
from tests.fakes import toy_runtime, until
from tests.integration.connections import PROBE
from tests.wire import Connection, connected


class Clockwork:
    """An event loop of which only timers are used, which end when they are told to."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> object:
        self.timers.append((delay_s, callback, arguments))
        return object()

    def go_on(self) -> float:
        """End the only timer; how long it was."""
        [(delay_s, callback, arguments)] = self.timers
        self.timers.clear()
        callback(*arguments)
        return delay_s


class Sender:
    """One that sent requests ahead."""

    def __init__(self, name: str, turns: list[str], *, has_left: bool = False, fails: bool = False) -> None:
        self.name, self.turns, self.has_left, self.fails = name, turns, has_left, fails

    def read_on(self) -> bool:
        if self.fails:
            raise RuntimeError(self.name)
        if not self.has_left:
            self.turns.append(self.name)
        return not self.has_left


def test_one_connection_after_another_has_a_turn_now_and_then() -> None:
    pace, loop, turns = Pace(), Clockwork(), list[str]()
    for sender in (Sender("a", turns), Sender("gone", turns, has_left=True), Sender("b", turns), Sender("c", turns)):
        pace.wait(sender, loop)  # type: ignore[arg-type]
    for expected in ("a", "ab", "abc"):
        assert loop.go_on() == EVERY_S > 0
        assert "".join(turns) == expected
    assert not loop.timers
    pace.wait(Sender("d", turns), loop)  # type: ignore[arg-type]
    loop.go_on()
    assert turns[-1] == "d"


def test_what_fails_for_one_does_not_stop_the_others() -> None:
    pace, loop, turns = Pace(), Clockwork(), list[str]()
    for sender in (Sender("bad", turns, fails=True), Sender("a", turns)):
        pace.wait(sender, loop)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="bad"):
        loop.go_on()
    loop.go_on()
    assert turns == ["a"]


def on_a_connection(scenario: Callable[[Connection, HttpProtocol], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with connected(toy_runtime()) as connection:
            await scenario(connection, connection._protocol)

    asyncio.run(run())


def is_idle(protocol: HttpProtocol) -> bool:
    """Whether the connection will be closed if nothing comes."""
    timer = protocol.timeout_keep_alive_task
    return timer is not None and not timer.cancelled()


def test_what_was_sent_ahead_is_read_at_the_servers_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.connection.pacing.EVERY_S", 3600.0)

    async def scenario(connection: Connection, protocol: HttpProtocol) -> None:
        pace = protocol.shared.pace
        answers = await connection.ask(PROBE * (2 * MAX_UNANSWERED + 1) + b"\r\n")
        for turn in (1, 2):
            await until(lambda: bool(pace._waiting))
            await asyncio.gather(*protocol.tasks)
            assert connection.written.count(b"HTTP/1.1 200") == turn * MAX_UNANSWERED, answers
            assert not is_idle(protocol)  # it is the server that lets it wait
            pace._next(asyncio.get_running_loop())
        await until(lambda: is_idle(protocol))
        assert connection.written.count(b"HTTP/1.1 200") == 2 * MAX_UNANSWERED + 1

    on_a_connection(scenario)


def test_a_connection_is_idle_until_it_asks_and_once_it_is_answered() -> None:
    async def scenario(connection: Connection, protocol: HttpProtocol) -> None:
        assert is_idle(protocol)
        protocol.data_received(PROBE[:5])
        assert not is_idle(protocol)
        await connection.ask(PROBE[5:])
        assert is_idle(protocol)
        protocol.connection_lost(ConnectionResetError())
        assert not is_idle(protocol)

    on_a_connection(scenario)


def test_blank_lines_behind_the_last_request_leave_it_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.connection.pacing.EVERY_S", 0.0)

    async def scenario(connection: Connection, protocol: HttpProtocol) -> None:
        await connection.ask(PROBE * MAX_UNANSWERED + b"\r\n")
        await until(lambda: protocol._rest is None and is_idle(protocol))

    on_a_connection(scenario)


def test_a_connection_is_not_idle_while_a_body_comes_that_was_answered_already() -> None:
    async def scenario(connection: Connection, protocol: HttpProtocol) -> None:
        head = b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n"
        assert b" 415 " in await connection.ask(head + b"12345")
        assert not is_idle(protocol)
        assert protocol._receive_timer is not None
        protocol.data_received(b"67890")
        assert is_idle(protocol)
        assert protocol._receive_timer is None

    on_a_connection(scenario)
