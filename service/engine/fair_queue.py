"""Things of several clients that wait: clients take turns, each with its most urgent thing first. Pure: no threads, no clock.

This is start-time fair queueing. Each client has a turn, a point on a virtual clock, and the earliest turn is next. What a
client is given moves its turn on by what that costs; the clock goes with the turns that are taken. Who comes anew starts at the
clock, or where it was if that is later, so nobody saves up turns while away and nobody escapes its debts by leaving the line.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Thing = TypeVar("Thing")

MIN_DEAD: Final = 16
"""Things that wait no more are swept from a heap when they are this many and more than the others."""
MAX_DEBTORS: Final = 1024
"""Turns of clients with nothing in line that are remembered, the latest ones."""


class _Owner(Generic[Thing]):
    """What one client has in line."""

    __slots__ = ("heap", "listed", "n_waiting", "turn")

    def __init__(self, turn: float) -> None:
        self.turn = turn
        self.heap: list[tuple[float, int, Thing]] = []
        self.n_waiting = 0
        self.listed: tuple[float, float, int, int, _Owner[Thing]] | None = None
        """Its entry in the order of clients; any other one there is out of date."""


class FairQueue(Generic[Thing]):
    """Things by client and urgency. Not thread-safe.

    Args:
        waits: Whether a thing still waits. Whoever makes one stop says so by `take` or `left`.
    """

    def __init__(self, waits: Callable[[Thing], bool]) -> None:
        self._waits = waits
        self._owners: dict[Hashable, _Owner[Thing]] = {}
        self._order: list[tuple[float, float, int, int, _Owner[Thing]]] = []
        self._debts: dict[Hashable, float] = {}
        self._clock = 0.0
        self._n_pushed = 0
        self._n_listed = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._owners)

    def push(self, client: Hashable, urgency: float, thing: Thing) -> None:
        """Add a thing; of one client's, the one with the least `urgency` is first, and of equal ones the one pushed first."""
        owner = self._owners.get(client)
        if owner is None:
            owner = self._owners[client] = _Owner(max(self._clock, self._debts.pop(client, 0.0)))
        self._n_pushed += 1
        entry = (urgency, self._n_pushed, thing)
        heapq.heappush(owner.heap, entry)
        owner.n_waiting += 1
        if owner.heap[0] is entry:
            self._list(owner)

    def first(self) -> Thing | None:
        """The most urgent thing of the client whose turn is next; of equal turns the most urgent thing, then the oldest."""
        while self._order:
            listed = self._order[0]
            owner = listed[-1]
            if owner.listed is not listed or not owner.n_waiting:
                heapq.heappop(self._order)
                continue
            while not self._waits(owner.heap[0][2]):
                heapq.heappop(owner.heap)
            urgency, number, thing = owner.heap[0]
            if listed[:3] == (owner.turn, urgency, number):
                return thing
            heapq.heappop(self._order)
            self._list(owner)
        return None

    def take(self, client: Hashable, cost: float = 0.0) -> None:
        """What was `first` waits no more, since its client's turn has come; its cost may be charged here or later."""
        owner = self._owners[client]
        self._clock = max(self._clock, owner.turn)
        owner.turn += cost
        self.left(client)

    def left(self, client: Hashable) -> None:
        """A thing of the client waits no more; its entry stays until it comes up, or until such entries are the majority."""
        owner = self._owners[client]
        owner.n_waiting -= 1
        if not owner.n_waiting:
            del self._owners[client]
            owner.heap, owner.listed = [], None  # else each holds the other, and what waited, until the garbage collector comes
            self._remember(client, owner.turn)
            if not self._owners:
                self._order.clear()
        elif len(owner.heap) > 2 * owner.n_waiting + MIN_DEAD:
            owner.heap = [entry for entry in owner.heap if self._waits(entry[2])]
            heapq.heapify(owner.heap)

    def charge(self, client: Hashable, cost: float) -> None:
        """What the client was given has cost that much, at least 0; its turn moves on."""
        owner = self._owners.get(client)
        if owner is None:
            self._remember(client, max(self._clock, self._debts.pop(client, 0.0)) + cost)
        else:
            owner.turn += cost  # where it is listed is out of date then, and found to be so when it comes up

    def _list(self, owner: _Owner[Thing]) -> None:
        urgency, number, _ = owner.heap[0]
        # Counted, so that two entries never compare their owners.
        self._n_listed += 1
        owner.listed = (owner.turn, urgency, number, self._n_listed, owner)
        heapq.heappush(self._order, owner.listed)

    def _remember(self, client: Hashable, turn: float) -> None:
        if turn > self._clock:
            self._debts[client] = turn
            if len(self._debts) > MAX_DEBTORS:
                del self._debts[next(iter(self._debts))]
