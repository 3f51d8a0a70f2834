"""The queue of crops: earliest deadline first, bounded in items. Pure and synchronous: no threads, no clock of its own.

A slot is reserved at admission, before any pixel is decoded, and turns into a waiting item when the crop is decoded.
Reserved and waiting items count alike against the capacity, so crops still being decoded cannot overfill the queue.

An item that was settled while it waited (its client left) keeps its place and is dropped at pop.
"""

from __future__ import annotations

import heapq

from service.engine.types import Item


class DeadlineQueue:
    """Items by deadline; equal deadlines in order of arrival. Not thread-safe: the engine holds a lock around it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reserved = 0
        self._heap: list[tuple[float, int, Item]] = []
        self._by_arrival: dict[int, Item] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        """Items that wait; reserved slots are not among them."""
        return len(self._heap)

    def reserve(self, n_items: int) -> bool:
        """Reserve slots for all `n_items` or none; `False` when they do not all fit."""
        if len(self._heap) + self.reserved + n_items > self.capacity:
            return False
        self.reserved += n_items
        return True

    def release(self) -> None:
        """Give back one reserved slot, of an item that will never be pushed."""
        if self.reserved < 1:
            raise ValueError("release without a reserved slot")
        self.reserved -= 1

    def push(self, item: Item, now_s: float) -> None:
        """Turn one reserved slot into a waiting item."""
        self.release()
        item.enqueued_s = now_s
        self._arrivals += 1
        heapq.heappush(self._heap, (item.deadline_s, self._arrivals, item))
        self._by_arrival[self._arrivals] = item

    def pop(self, now_s: float, max_items: int) -> tuple[list[Item], list[Item]]:
        """Take up to `max_items` live items, most urgent first.

        Returns:
            The batch, and the items found expired on the way. Items already settled are dropped and in neither. The
            batch is empty only when no live item is left.
        """
        batch: list[Item] = []
        expired: list[Item] = []
        while self._heap and len(batch) < max_items:
            deadline_s, arrival, item = heapq.heappop(self._heap)
            del self._by_arrival[arrival]
            if item.outcome is not None:
                continue
            (batch if deadline_s > now_s else expired).append(item)
        return batch, expired

    def delay_s(self, now_s: float, max_items: int, max_delay_s: float) -> float | None:
        """How long a free lane should hold out for company: 0 to pop now, `None` when nothing waits.

        The delay is measured by the age of the oldest item; a full batch never waits.
        """
        if not self._heap:
            return None
        if len(self._heap) >= max_items:
            return 0.0
        return max(0.0, max_delay_s - self.oldest_age_s(now_s))

    def oldest_age_s(self, now_s: float) -> float:
        """Age of the item that has waited longest; 0 when nothing waits."""
        for item in self._by_arrival.values():
            return now_s - item.enqueued_s
        return 0.0

    def clear(self) -> list[Item]:
        """Take everything out, most urgent first; reserved slots stay reserved."""
        items = [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2])]
        self._heap.clear()
        self._by_arrival.clear()
        return items
