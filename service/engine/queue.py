"""The queue of crops: earliest deadline first, bounded in items. Pure and synchronous: no threads, no clock of its own.

A slot is reserved at admission, before any pixel is decoded, and turns into a waiting item when the crop is decoded.
Reserved and waiting items count alike against the capacity, so crops still being decoded cannot overfill the queue.
An item that ends before it is taken (its client left) gives its slot back at once.

Several clients take turns within a class, each with its earliest deadline first; an early deadline does not bring one client's
bulk before another client's single crops. When places run short, each client has a fair share (`Places`).

Deadlines alone would let a flood of single crops keep the crops of larger requests ("bulk") waiting until theirs are near.
So bulk has a minimum share: while any of it waits, it gets at least one in `BULK_EVERY` places in batches.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Final

from service.engine.fair_queue import MIN_DEAD, FairQueue
from service.engine.places import EXTRA_PLACES, Places
from service.engine.types import Item, Stage

BULK_EVERY: Final = 10


def _waits(item: Item) -> bool:
    return item.stage is Stage.WAITING


class _ClassQueue:
    """The items of one class by deadline, and in the order in which they are taken; equal deadlines in order of arrival."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Item]] = []
        self.turns: FairQueue[Item] = FairQueue(_waits)
        self.n_waiting = 0

    def push(self, item: Item) -> None:
        heapq.heappush(self.heap, (item.deadline_s, item.arrival, item))
        self.turns.push(item.client, item.deadline_s, item)
        self.n_waiting += 1

    def most_urgent(self) -> tuple[float, int, Item] | None:
        """The entry with the earliest deadline that still waits, of whichever client."""
        while self.heap and self.heap[0][2].stage is not Stage.WAITING:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def left(self, item: Item, taken: bool) -> None:
        """An item waits no more; its entry stays until it comes up, or until such entries are the majority."""
        if taken:
            self.turns.take(item.client, 1.0)
        else:
            self.turns.left(item.client)
        self.n_waiting -= 1
        if len(self.heap) > 2 * self.n_waiting + MIN_DEAD:
            self.heap = [entry for entry in self.heap if entry[2].stage is Stage.WAITING]
            heapq.heapify(self.heap)


class DeadlineQueue(Places):
    """Items being decoded (reserved slots) and items that wait. Not thread-safe: the engine holds a lock around it.

    Args:
        capacity: Items reserved or waiting, at most; `EXTRA_PLACES` more for clients that hold less than their share.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._reserved = {False: 0, True: 0}
        self._classes = {False: _ClassQueue(), True: _ClassQueue()}
        self._by_arrival: dict[int, Item] = {}
        self._arrivals = 0
        self._places_without_bulk = 0
        self.n_waiting = 0
        """Items that wait; reserved slots are not among them."""

    def __len__(self) -> int:
        """Items that wait."""
        return self.n_waiting

    @property
    def reserved(self) -> int:
        """Slots of items being decoded."""
        return self.n_taken - self.n_waiting

    def held(self, bulk: bool) -> int:
        """Slots held by one class, reserved or waiting."""
        return self._reserved[bulk] + self._classes[bulk].n_waiting

    def reserve(self, item: Item) -> None:
        """Reserve a slot. A follower gets one in any case: its crop was let in, and is not refused half-way.

        Raises:
            ValueError: None is free, or the item was here before.
        """
        full = self.n_taken >= self.capacity + int(EXTRA_PLACES * self.capacity)
        if item.stage is not Stage.NEW or (full and not item.is_follower):
            raise ValueError("no slot for this item")
        item.stage = Stage.DECODING
        self.n_taken += 1
        self._reserved[item.bulk] += 1
        held = self._held.get(item.client)
        if held is None:
            held = self._held[item.client] = {False: 0, True: 0}
        held[item.bulk] += 1

    def demote(self, item: Item) -> None:
        """Count a single crop as bulk until it is decoded: others do not wait for it meanwhile."""
        if item.stage is Stage.DECODING and not item.bulk and not item.demoted:
            item.demoted = True
            for places in (self._reserved, self._held[item.client]):
                places[False] -= 1
                places[True] += 1

    def push(self, item: Item, now_s: float) -> None:
        """Turn the item's reserved slot into a waiting item.

        Raises:
            ValueError: It holds none.
        """
        if item.stage is not Stage.DECODING:
            raise ValueError("this item has no reserved slot")
        self._reserved[item.bulk or item.demoted] -= 1
        if item.demoted:
            item.demoted = False
            held = self._held[item.client]
            held[True] -= 1
            held[False] += 1
        item.stage, item.enqueued_s = Stage.WAITING, now_s
        self._arrivals += 1
        item.arrival = self._arrivals
        self._classes[item.bulk].push(item)
        self._by_arrival[item.arrival] = item
        self.n_waiting += 1

    def remove(self, item: Item) -> None:
        """End an item wherever it is, and give back the slot it may hold."""
        if item.stage is Stage.DECODING:
            self._reserved[item.bulk or item.demoted] -= 1
            self._give_back(item)
        elif item.stage is Stage.WAITING:
            self._leave(item, Stage.ENDED)
        item.stage = Stage.ENDED

    def expire(self, now_s: float) -> list[Item]:
        """End the waiting items whose deadline has passed, and return them."""
        expired = []
        for line in self._classes.values():
            while line.heap and (first := line.most_urgent()) and first[0] <= now_s:
                expired.append(first[2])
                self.remove(first[2])
        return expired

    def first(self, bulk_may_lead: bool) -> Item | None:
        """The item to take next: bulk when its share is due; else, of the two classes' next items, by deadline.

        Args:
            bulk_may_lead: Whether the share of bulk counts here.
        """
        singles, others = self._classes[False], self._classes[True]
        single = singles.turns.first() if singles.n_waiting else None
        bulk = others.turns.first() if others.n_waiting else None
        if single is None or bulk is None:
            return single or bulk
        if bulk_may_lead and self.bulk_is_due:
            return bulk
        if single.client != bulk.client:
            return single  # no client overtakes another one by a short deadline
        return min(single, bulk, key=_order)

    def bulk_precedes(self, deadline_s: float, client: Hashable | None = None) -> bool:
        """Whether the most urgent bulk has an earlier deadline; with a client, also whether that bulk is its own."""
        entry = self._classes[True].most_urgent()
        return entry is not None and entry[0] < deadline_s and (client is None or entry[2].client == client)

    def first_bulk(self) -> tuple[float, Hashable] | None:
        """Deadline and client of the most urgent bulk."""
        entry = self._classes[True].most_urgent()
        return None if entry is None else (entry[0], entry[2].client)

    @property
    def bulk_is_due(self) -> bool:
        """Whether bulk should have one of the next two places to keep its share."""
        return self._places_without_bulk >= BULK_EVERY - 2

    def take(self, item: Item) -> None:
        """A waiting item leaves for a batch; its slot is free."""
        self._leave(item, Stage.RUNNING, taken=True)
        if item.bulk or not self._classes[True].n_waiting:
            self._places_without_bulk = 0
        else:
            self._places_without_bulk += 1

    def oldest_age_s(self, now_s: float) -> float:
        """Age of the item that has waited longest; 0 when nothing waits."""
        for item in self._by_arrival.values():
            return now_s - item.enqueued_s
        return 0.0

    def clear(self) -> list[Item]:
        """End all items that wait, and return them; reserved slots stay reserved."""
        items = list(self._by_arrival.values())
        for item in items:
            self.remove(item)
        return items

    def _leave(self, item: Item, stage: Stage, taken: bool = False) -> None:
        item.stage = stage  # before the line looks at it
        del self._by_arrival[item.arrival]
        self.n_waiting -= 1
        self._classes[item.bulk].left(item, taken)
        self._give_back(item)

    def _give_back(self, item: Item) -> None:
        self.n_taken -= 1
        held = self._held[item.client]
        held[item.bulk or item.demoted] -= 1
        if not held[False] and not held[True]:
            del self._held[item.client]


def _order(item: Item) -> tuple[float, int]:
    return item.deadline_s, item.arrival
