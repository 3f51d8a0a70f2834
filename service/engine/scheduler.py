"""Every decision of the engine: who is let in, what a free lane runs, how items end. Pure: no threads, no clock of its own.

The engine calls it under its lock and tells it the time, so a test can play through any course of events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.engine.admission import UNBOUNDED, Admission, AdmissionState, Budgets
from service.engine.cost import CostModel
from service.engine.queue import DeadlineQueue
from service.engine.types import Crop, Decoding, Item, Outcome, Stage

BULK_STRETCH: Final = 1.75
"""While single crops come, bulk makes a run at most this many times longer than its single crops, or one crop, would need."""
BULK_YIELDS_S: Final = 1.0
"""How long after the last admitted single crop that rule holds."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What bounds the queue.

    Args:
        lanes: Runs in flight at once.
        max_queue_items: Items being decoded or waiting, at most.
        max_queue_delay_s: How long a free lane may hold an item back for company.
        budgets: How long a request may be predicted to wait.
        bulk_stretch: How many times longer bulk may make a run while single crops come.
    """

    lanes: int
    max_queue_items: int
    max_queue_delay_s: float = 0.0
    budgets: Budgets = UNBOUNDED
    bulk_stretch: float = BULK_STRETCH


class Scheduler(Admission):
    """The state of all items. Not thread-safe: the engine holds a lock around it.

    Args:
        cost: Of a run.
        limits: What bounds the queue.
        decoding: Asked how long newcomers wait to be decoded.
    """

    def __init__(self, cost: CostModel, limits: EngineLimits, decoding: Decoding | None = None) -> None:
        self._queue = DeadlineQueue(limits.max_queue_items)
        super().__init__(self._queue, cost, limits.lanes, limits.budgets, decoding)
        self._limits = limits
        self._single_seen_s = -math.inf

    # -- What there is ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of items that wait for a lane."""
        return self._queue.n_waiting

    @property
    def decoding(self) -> int:
        """Number of admitted items whose image is not decoded yet."""
        return self._queue.reserved

    @property
    def in_flight(self) -> int:
        """Items being decoded, waiting or running."""
        return self._queue.n_taken + self._running

    @property
    def alone(self) -> bool:
        """Whether one item runs and no other is in the engine, so that it may have all cores."""
        return self._running == 1 and not self._queue.n_taken

    def oldest_age_s(self, now_s: float) -> float:
        """Age of the item that has waited longest; 0 when nothing waits."""
        return self._queue.oldest_age_s(now_s)

    def state(self) -> AdmissionState:
        """What admission decides by at this moment."""
        queue = self._queue
        holders = {client: (held[False], held[True]) for client, held in queue.holders().items()}
        return AdmissionState(
            queue.capacity,
            queue.n_taken,
            queue.held(False),
            queue.held(True),
            self._running,
            self._busy_lanes,
            queue.first_bulk(),
            holders,
            self.cost.cap,
            self.cost.run_times(),
        )

    # -- What happens to items ----------------------------------------------------------------------------------------

    def admit(self, items: Sequence[Item], now_s: float) -> None:
        """Let in all items of a request, or none. They have the same deadline and client, and are alike in `bulk`.

        Raises:
            QueueFullError: There is no room for all of them, or they would wait too long.
        """
        refusal = self.refusal_of(len(items), items[0].bulk, items[0].deadline_s, now_s, items[0].client)
        if refusal is not None:
            raise refusal
        if not items[0].bulk:
            self._single_seen_s = now_s
        for item in items:
            self._queue.reserve(item)
            item.admitted_s = now_s

    def demote(self, item: Item) -> None:
        """The image of a single crop will take long to decode: until then, the crop does not count as ahead of others."""
        self._queue.demote(item)

    def submit(self, item: Item, crop: Crop, now_s: float) -> bool:
        """Queue the decoded crop of an admitted item; `False` when the item has ended meanwhile."""
        if item.stage is not Stage.DECODING:
            return False
        item.crop = crop
        self._queue.push(item, now_s)
        return True

    def follow(self, leader: Item, followers: Sequence[Item], now_s: float) -> None:
        """Queue further reads of an admitted item, whose deadline, client and class they have. They count as any items do.

        Args:
            leader: The item; it has not ended, or ended well.
            followers: They have their crops.
            now_s: The time.
        """
        leader.followers = (*leader.followers, *followers)
        for item in followers:
            self._queue.reserve(item)
            item.admitted_s = now_s
            self._queue.push(item, now_s)

    def settle(self, item: Item, outcome: Outcome, error: Exception | None = None) -> bool:
        """End an item wherever it is, and free its slot; `False` when it had ended before."""
        if item.outcome is not None:
            return False
        item.outcome, item.error = outcome, error
        self._queue.remove(item)
        return True

    def clear(self) -> list[Item]:
        """Take out everything that waits, without an outcome."""
        return self._queue.clear()

    # -- What lanes do ------------------------------------------------------------------------------------------------

    def hold_s(self, now_s: float, max_delay_s: float | None = None) -> float | None:
        """How many seconds a free lane should wait for more items: 0 to take a batch now, `None` when nothing waits.

        The delay is measured by the age of the oldest item; a full batch never waits, nor does an item that would be late.
        """
        n_waiting = self._queue.n_waiting
        if not n_waiting:
            return None
        max_delay_s = self._limits.max_queue_delay_s if max_delay_s is None else max_delay_s
        if max_delay_s == 0.0 or n_waiting >= self.cost.cap:
            return 0.0
        lead = self._queue.first(bulk_may_lead=False)
        if lead is None:
            return None
        spare_s = lead.deadline_s - now_s - self.cost.duration_s(n_waiting)
        return max(0.0, min(max_delay_s - self.oldest_age_s(now_s), spare_s))

    def take(self, now_s: float, idle_lanes: int) -> tuple[list[Item], list[Item]]:
        """Form the batch of a free lane.

        Args:
            now_s: The time.
            idle_lanes: Lanes that could take a batch now, this one included.

        Returns:
            The batch, most urgent first, and the items found expired. The batch is empty only when nothing waits. It is
            as large as the cost model's cap, the share of an idle lane and the earliest deadline in it allow.
        """
        expired = self._queue.expire(now_s)
        for item in expired:
            item.outcome = Outcome.EXPIRED
        # Idle lanes share what waits: two half batches at once end sooner than one whole batch.
        share = -(-self._queue.n_waiting // idle_lanes)
        batch = self._form(now_s, share)
        if batch:
            self.began(len(batch))
        return batch, expired

    def began(self, n_items: int) -> None:
        """A lane runs `n_items`; also called when it runs some of a failed batch again."""
        self._busy_lanes += 1
        self._running += n_items

    def ran(self, n_items: int, duration_s: float | None = None) -> None:
        """A run is over; with its duration when the cost model is to learn from it."""
        self._busy_lanes -= 1
        self._running -= n_items
        if duration_s is not None:
            self.cost.observe(n_items, duration_s)

    def _form(self, now_s: float, limit: int) -> list[Item]:
        batch: list[Item] = []
        n_singles = 0
        lead = self._queue.first(bulk_may_lead=False)
        lead_is_late = False
        if lead is not None and self._queue.n_waiting == 1:  # it goes alone, in time or not
            self._queue.take(lead)
            return [lead]
        if lead is not None:
            lead_is_late = self.cost.duration_s(1) > lead.deadline_s - now_s
            limit = min(limit, self._largest_in_time(lead, now_s))
        while len(batch) < limit:
            # The most urgent item goes first and a due share of bulk second; bulk goes first where there is but one place, or
            # where the most urgent item is too late anyway.
            item = self._queue.first(bulk_may_lead=bool(batch) or limit == 1 or lead_is_late)
            if item is None:
                break
            largest = self._largest_in_time(item, now_s)
            if batch and (largest <= len(batch) or not self._is_welcome(item, len(batch), n_singles, now_s)):
                break
            self._queue.take(item)
            batch.append(item)
            n_singles += not item.bulk
            limit = min(limit, largest)
        return batch

    def _is_welcome(self, item: Item, n_items: int, n_singles: int, now_s: float) -> bool:
        """Whether an item may join a batch of `n_items`: a long run of bulk keeps single crops waiting, in it and behind it."""
        if not item.bulk or self._queue.bulk_is_due or now_s - self._single_seen_s > BULK_YIELDS_S:
            return True
        longest_s = self._limits.bulk_stretch * self.cost.duration_s(max(1, n_singles))
        return self.cost.duration_s(n_items + 1) <= longest_s

    def _largest_in_time(self, item: Item, now_s: float) -> int:
        """The largest batch in which the item is read by its deadline; the cap when it cannot be in time anyway."""
        return self.cost.largest_within(item.deadline_s - now_s, self.cost.cap) or self.cost.cap
