"""The queue of crops: earliest deadline first, bounded in items. Pure and synchronous: no threads, no clock of its own.

A slot is reserved at admission, before any pixel is decoded, and turns into a waiting item when the crop is decoded.
Reserved and waiting items count alike against the capacity, so crops still being decoded cannot overfill the queue.
An item that ends before it is taken (its client left) gives its slot back at once.

Deadlines alone would let a flood of single crops keep the crops of larger requests ("bulk") waiting until theirs are near.
So bulk has a minimum share: while any of it waits, it gets at least one in `BULK_EVERY` places in batches.
"""

from __future__ import annotations

import heapq
from typing import Final

from service.engine.types import Item, Stage

BULK_EVERY: Final = 10
MIN_DEAD: Final = 16
"""Ended items are swept from a heap when they are this many and more than the others."""


class _Line:
    """The items of one class by deadline; equal deadlines in order of arrival."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Item]] = []
        self.n_waiting = 0

    def push(self, item: Item) -> None:
        heapq.heappush(self.heap, (item.deadline_s, item.arrival, item))
        self.n_waiting += 1

    def first(self) -> tuple[float, int, Item] | None:
        """The most urgent entry still waiting."""
        while self.heap and self.heap[0][2].stage is not Stage.WAITING:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def left(self) -> None:
        """One of its items waits no more; its entry stays until it comes up, or until such entries are the majority."""
        self.n_waiting -= 1
        if len(self.heap) > 2 * self.n_waiting + MIN_DEAD:
            self.heap = [entry for entry in self.heap if entry[2].stage is Stage.WAITING]
            heapq.heapify(self.heap)


class DeadlineQueue:
    """Items being decoded (reserved slots) and items that wait. Not thread-safe: the engine holds a lock around it.

    Args:
        capacity: Items reserved or waiting, at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._reserved = {False: 0, True: 0}
        self._lines = {False: _Line(), True: _Line()}
        self._by_arrival: dict[int, Item] = {}
        self._arrivals = 0
        self._places_without_bulk = 0

    def __len__(self) -> int:
        """Items that wait; reserved slots are not among them."""
        return len(self._by_arrival)

    @property
    def reserved(self) -> int:
        """Slots of items being decoded."""
        return self._reserved[False] + self._reserved[True]

    def held(self, bulk: bool) -> int:
        """Slots held by one class, reserved or waiting."""
        return self._reserved[bulk] + self._lines[bulk].n_waiting

    @property
    def free(self) -> int:
        """Slots held by nobody."""
        return self.capacity - len(self) - self.reserved

    def reserve(self, item: Item) -> None:
        """Reserve a slot.

        Raises:
            ValueError: none is free, or the item was here before.
        """
        if item.stage is not Stage.NEW or not self.free:
            raise ValueError("no slot for this item")
        item.stage = Stage.DECODING
        self._reserved[item.bulk] += 1

    def push(self, item: Item, now_s: float) -> None:
        """Turn the item's reserved slot into a waiting item.

        Raises:
            ValueError: it holds none.
        """
        if item.stage is not Stage.DECODING:
            raise ValueError("this item has no reserved slot")
        self._reserved[item.bulk] -= 1
        item.stage, item.enqueued_s = Stage.WAITING, now_s
        self._arrivals += 1
        item.arrival = self._arrivals
        self._lines[item.bulk].push(item)
        self._by_arrival[item.arrival] = item

    def remove(self, item: Item) -> None:
        """End an item wherever it is, and give back the slot it may hold."""
        if item.stage is Stage.DECODING:
            self._reserved[item.bulk] -= 1
        elif item.stage is Stage.WAITING:
            self._leave(item, Stage.ENDED)
        item.stage = Stage.ENDED

    def expire(self, now_s: float) -> list[Item]:
        """End the waiting items whose deadline has passed, and give them out."""
        expired = []
        for line in self._lines.values():
            while (first := line.first()) and first[0] <= now_s:
                expired.append(first[2])
                self.remove(first[2])
        return expired

    def first(self, bulk_may_lead: bool) -> Item | None:
        """The item to take next: bulk when its share is due, else the one with the earliest deadline.

        Args:
            bulk_may_lead: Whether the share counts here; else deadlines alone do.
        """
        single, bulk = self._lines[False].first(), self._lines[True].first()
        if single is None or bulk is None:
            entry = single or bulk
        elif bulk_may_lead and self.bulk_is_due:
            entry = bulk
        else:
            entry = min(single, bulk)
        return entry[2] if entry else None

    def bulk_precedes(self, deadline_s: float) -> bool:
        """Whether bulk waits whose deadline is earlier."""
        entry = self._lines[True].first()
        return entry is not None and entry[0] < deadline_s

    @property
    def bulk_is_due(self) -> bool:
        """Whether bulk should have one of the next two places to keep its share."""
        return self._places_without_bulk >= BULK_EVERY - 2

    def take(self, item: Item) -> None:
        """A waiting item leaves for a batch; its slot is free."""
        self._leave(item, Stage.RUNNING)
        if item.bulk or not self._lines[True].n_waiting:
            self._places_without_bulk = 0
        else:
            self._places_without_bulk += 1

    def oldest_age_s(self, now_s: float) -> float:
        """Age of the item that has waited longest; 0 when nothing waits."""
        for item in self._by_arrival.values():
            return now_s - item.enqueued_s
        return 0.0

    def clear(self) -> list[Item]:
        """End everything that waits, and give it out; reserved slots stay reserved."""
        items = list(self._by_arrival.values())
        for item in items:
            self.remove(item)
        return items

    def _leave(self, item: Item, stage: Stage) -> None:
        item.stage = stage  # before the line looks at it
        del self._by_arrival[item.arrival]
        self._lines[item.bulk].left()
