"""Waiting things of several clients: clients take turns, each with its most urgent thing first. Pure: no threads, no clock.

This is start-time fair queueing. Each client has a turn, a point on a virtual clock, and the earliest turn is next. Whatever a
client is given moves its turn on by its cost; the clock follows the turns that are taken. A client that joins starts at the
clock, or at its former turn if that is later: nobody saves up turns while away, and nobody loses debts by leaving.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Thing = TypeVar("Thing")

MIN_DEAD: Final = 16
"""Entries of things that wait no more are removed from a heap when they are more than this and more than the live ones."""
MAX_DEBTORS: Final = 1024
"""How many turns of clients with nothing in the queue are remembered; the oldest are forgotten first."""


class _Owner(Generic[Thing]):
    """What one client has in the queue."""

    __slots__ = ("heap", "listed", "n_waiting", "turn")

    def __init__(self, turn: float) -> None:
        self.turn = turn
        self.heap: list[tuple[float, int, Thing]] = []
        self.n_waiting = 0
        self.listed: tuple[float, float, int, int, _Owner[Thing]] | None = None
        """Its valid entry in the order of clients; any other entry of it there is out of date."""


class FairQueue(Generic[Thing]):
    """Things by client and urgency. Not thread-safe.

    Args:
        waits: Tells whether a thing still waits. When one stops waiting, `take` or `left` must be called.
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
        """Add a thing. Of one client's things the least `urgency` is first; of equal ones, the one pushed first."""
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
        """The most urgent thing of the client whose turn is next; among equal turns the most urgent thing, then the oldest."""
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
        """The `first` thing waits no more, since its client's turn has come; its cost is charged here, or later by `charge`."""
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
            owner.heap, owner.listed = [], None  # else they hold each other, and the things, until the garbage collector runs
            self._remember(client, owner.turn)
            if not self._owners:
                self._order.clear()
        elif len(owner.heap) > 2 * owner.n_waiting + MIN_DEAD:
            owner.heap = [entry for entry in owner.heap if self._waits(entry[2])]
            heapq.heapify(owner.heap)

    def charge(self, client: Hashable, cost: float) -> None:
        """Move the client's turn on by the cost, at least 0, of what it was given."""
        owner = self._owners.get(client)
        if owner is None:
            self._remember(client, max(self._clock, self._debts.pop(client, 0.0)) + cost)
        else:
            owner.turn += cost  # its entry is out of date then, which `first` notices

    def _list(self, owner: _Owner[Thing]) -> None:
        urgency, number, _ = owner.heap[0]
        # Numbered, so that comparing two entries never compares their owners.
        self._n_listed += 1
        owner.listed = (owner.turn, urgency, number, self._n_listed, owner)
        heapq.heappush(self._order, owner.listed)

    def _remember(self, client: Hashable, turn: float) -> None:
        if turn > self._clock:
            self._debts[client] = turn
            if len(self._debts) > MAX_DEBTORS:
                del self._debts[next(iter(self._debts))]
