"""How messages of gRPC are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.errors import Problem
from service.grpc import arrivals as module
from service.grpc.arrivals import FEWEST, Arrivals
from service.http.connection.body_budget import BodyBudget
from tests.fakes import until

END = object()
MIB = 2**20
Read = Callable[[], Awaitable[Any]]


def coming(data: Any = b"x", after: asyncio.Event | None = None) -> Read:
    async def read() -> Any:
        if after is not None:
            await after.wait()
        return data

    return read


def new(timeout_s: float = 60, room: int = 64 * MIB) -> tuple[Arrivals, BodyBudget]:
    budget = BodyBudget(room)
    return Arrivals(budget, MIB, timeout_s, most_calls_of_one=FEWEST + 2, end=END), budget


async def slug(taking: Awaitable[Any]) -> str:
    with pytest.raises(Problem) as caught:
        await taking
    return caught.value.kind.slug


def test_what_has_come_is_held_until_it_is_released() -> None:
    async def scenario() -> None:
        arrivals, budget = new()
        data, holding = await arrivals.take("a", coming(b"x" * 1000))
        assert (len(data), budget.held_bytes) == (1000, 2000)
        arrivals.release(holding)
        assert budget.held_bytes == 0

    asyncio.run(scenario())


def test_what_does_not_come_is_told_why() -> None:
    async def scenario() -> None:
        arrivals, budget = new(timeout_s=0.01)
        assert await slug(arrivals.take("a", coming(after=asyncio.Event()))) == "request-timeout"
        assert await slug(arrivals.take("a", coming(END))) == "malformed-request"
        arrivals, budget = new(room=MIB)
        assert await slug(arrivals.take("a", coming(b"x" * MIB))) == "no-room-for-body"
        assert budget.held_bytes == 0

    asyncio.run(scenario())


def test_only_so_many_are_wanted_at_once_and_the_next_one_has_its_turn() -> None:
    async def scenario() -> None:
        arrivals, _ = new(room=MIB)
        gate, asked = asyncio.Event(), list[int]()

        async def read(index: int) -> bytes:
            asked.append(index)
            await gate.wait()
            return b"x"

        tasks = [asyncio.ensure_future(arrivals.take("a", lambda index=index: read(index))) for index in range(FEWEST + 2)]  # type: ignore[misc]
        await until(lambda: len(asked) == FEWEST)
        await asyncio.sleep(0)
        assert asked == list(range(FEWEST))
        tasks[-1].cancel()  # one that waits may go
        gate.set()
        await asyncio.gather(*tasks[:-1])
        assert asked == list(range(FEWEST + 1))

    asyncio.run(scenario())


def test_one_client_may_not_have_all_calls() -> None:
    async def scenario() -> None:
        arrivals, _ = new()
        held = [asyncio.ensure_future(arrivals.take("greedy", coming(after=asyncio.Event()))) for _ in range(FEWEST + 2)]
        await asyncio.sleep(0)
        assert await slug(arrivals.take("greedy", coming())) == "no-room-for-body"
        assert (await arrivals.take("other", coming()))[0] == b"x"
        held[0].cancel()
        await asyncio.wait(held[:1])
        assert (await arrivals.take("greedy", coming()))[0] == b"x"
        for task in held:
            task.cancel()

    asyncio.run(scenario())


def test_who_waits_in_vain_is_told_that_there_is_no_room() -> None:
    async def scenario() -> None:
        arrivals, _ = new(room=MIB, timeout_s=0.05)
        slow = [asyncio.ensure_future(arrivals.take(name, coming(after=asyncio.Event()))) for name in range(FEWEST)]
        await asyncio.sleep(0)
        assert await slug(arrivals.take("late", coming())) == "no-room-for-body"
        for task in slow:
            assert await slug(task) == "request-timeout"

    asyncio.run(scenario())


def test_the_slow_of_the_client_that_has_the_most_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)

    async def scenario() -> None:
        arrivals, _ = new(room=MIB)
        never = asyncio.Event()
        other = asyncio.ensure_future(arrivals.take("other", coming(after=never)))
        await asyncio.sleep(0)
        greedy = [asyncio.ensure_future(arrivals.take("greedy", coming(after=never))) for _ in range(FEWEST - 1)]
        await asyncio.sleep(0)
        data, _ = await arrivals.take("late", coming())
        assert data == b"x"
        assert await slug(greedy[0]) == "no-room-for-body"
        assert not other.done()
        assert not any(task.done() for task in greedy[1:])
        for task in (other, *greedy[1:]):
            task.cancel()

    asyncio.run(scenario())
