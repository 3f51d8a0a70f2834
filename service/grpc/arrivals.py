"""How the messages of calls are taken: a few at a time, each within its time, and no more than there is room for.

gRPC keeps a message to itself until all of it is there, and lets a client send no more than some kilobytes before somebody
wants it. So what can be bounded is how many are wanted at once. While they are slow and others wait, the client that has the
most of them is told to come again; this is what `http.connection.body_budget` does, as far as gRPC lets us.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final

from service.errors import MALFORMED_REQUEST, Problem
from service.http.connection.body_budget import COPIES, BodyBudget, Holding
from service.http.connection.refusals import no_room_for_body, too_slow

ROOM_SHARE: Final = 4
"""One part in so many of the room for bodies is for messages that arrive, on top of it."""
FEWEST: Final = 4
SLOW_S: Final = 1.0
"""What takes longer may have to make room for others."""
LOOK_EVERY_S: Final = 0.1
"""At those that are slow, while others wait."""


class _Arrival:
    __slots__ = ("began_s", "client", "evicted", "patience")

    def __init__(self, client: Hashable, patience: asyncio.Timeout) -> None:
        self.client, self.patience = client, patience
        self.began_s: float | None = None
        """`None`: it waits for its turn."""
        self.evicted = False


class Arrivals:
    """The messages of one server that arrive.

    Args:
        budget: Of all bodies; what has arrived is held in it.
        max_bytes: Of a message.
        timeout_s: For a message to arrive in, including the wait for its turn.
        most_calls_of_one: Messages of one client that arrive or wait, at most.
        end: What reading gives when there is no message.
    """

    def __init__(self, budget: BodyBudget, max_bytes: int, timeout_s: float, most_calls_of_one: int, end: Any) -> None:
        self._budget = budget
        self._room = asyncio.Semaphore(max(FEWEST, budget.max_bytes // ROOM_SHARE // max_bytes))
        self._timeout_s = timeout_s
        self._most_calls_of_one = most_calls_of_one
        self._calls: dict[Hashable, int] = {}
        """Those that arrive or wait, by client."""
        self._end = end
        self._arriving: dict[_Arrival, None] = {}
        """In the order in which they began."""
        self._n_waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, client: Hashable, read: Callable[[], Awaitable[Any]]) -> tuple[bytes, Holding]:
        """The message of a call, and what is held for it, which the caller gives back with `release`.

        Args:
            client: Whose it is.
            read: Waits for it.

        Raises:
            Problem: It does not come in time, or there is none, or there is no room.
        """
        if self._calls.get(client, 0) >= self._most_calls_of_one:
            raise no_room_for_body()
        self._calls[client] = self._calls.get(client, 0) + 1
        try:
            data = await self._receive(client, read)
        finally:
            self._calls[client] -= 1
            if not self._calls[client]:
                del self._calls[client]
        if data is self._end:
            raise Problem(MALFORMED_REQUEST, "The call has no message.")
        holding = Holding(client, lambda: None, COPIES)
        if not self._budget.take(holding, len(data)):
            raise no_room_for_body()
        holding.arriving = False
        return data, holding

    async def _receive(self, client: Hashable, read: Callable[[], Awaitable[Any]]) -> Any:
        arrival = None
        try:
            async with asyncio.timeout(self._timeout_s) as patience:
                arrival = _Arrival(client, patience)
                await self._turn()
                try:
                    arrival.began_s = asyncio.get_running_loop().time()
                    self._arriving[arrival] = None
                    return await read()
                finally:
                    self._arriving.pop(arrival, None)
                    self._room.release()
        except TimeoutError:
            if arrival is None or arrival.evicted or arrival.began_s is None:
                raise no_room_for_body() from None
            raise too_slow(self._timeout_s) from None

    def release(self, holding: Holding) -> None:
        """Nothing of it is held any more."""
        self._budget.release(holding)

    async def _turn(self) -> None:
        """Wait until one more message may arrive."""
        if self._room.locked():
            self._n_waiting += 1
            try:
                self._make_room()
                await self._room.acquire()
            finally:
                self._n_waiting -= 1
        else:
            await self._room.acquire()

    def _make_room(self) -> None:
        """Give up the oldest slow message of the client that has the most of them; and look again, while somebody waits."""
        loop = asyncio.get_running_loop()
        held = Counter(arrival.client for arrival in self._arriving)
        slow = [
            arrival
            for arrival in self._arriving
            if not arrival.evicted and arrival.began_s is not None and loop.time() - arrival.began_s >= SLOW_S
        ]
        if slow:
            victim = max(slow, key=lambda arrival: held[arrival.client])
            victim.evicted = True
            victim.patience.reschedule(loop.time())
        if self._timer is None:
            self._timer = loop.call_later(LOOK_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if self._n_waiting:
            self._make_room()
