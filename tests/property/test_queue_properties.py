"""Rules of the queue and of the engine around it, under any sequence of events."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.engine.batcher import Engine
from service.engine.queue import DeadlineQueue
from service.engine.types import Item, Outcome
from tests.fakes import PATIENCE_S, FakeSession, Mailbox, Tally, new_item
from tests.toy_artifact import pixels_of

CAPACITY, MAX_BATCH = 8, 3


class QueueMachine(RuleBasedStateMachine):
    """Admission, arrival, cancellation, time and pops in any order, beside a model that is a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = DeadlineQueue(CAPACITY)
        self.now_s = 0.0
        self.reserved = 0
        self.waiting: list[Item] = []
        self.ended: Counter[Item] = Counter()
        self.admitted = 0
        self.released = 0

    @rule(n_items=st.integers(1, CAPACITY + 1))
    def reserve(self, n_items: int) -> None:
        fits = len(self.waiting) + self.reserved + n_items <= CAPACITY
        assert self.queue.reserve(n_items) is fits
        if fits:
            self.reserved += n_items
            self.admitted += n_items

    @precondition(lambda self: self.reserved > 0)
    @rule(slack_s=st.floats(0, 10))
    def push(self, slack_s: float) -> None:
        item = new_item(self.now_s + slack_s)
        self.queue.push(item, self.now_s)
        self.reserved -= 1
        self.waiting.append(item)

    @precondition(lambda self: self.reserved > 0)
    @rule()
    def release(self) -> None:
        self.queue.release()
        self.reserved -= 1
        self.released += 1

    @precondition(lambda self: any(item.outcome is None for item in self.waiting))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for item in self.waiting if item.outcome is None]))
        item.outcome = Outcome.CANCELLED
        self.ended[item] += 1

    @rule(step_s=st.floats(0, 5))
    def time_passes(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(max_items=st.integers(1, MAX_BATCH))
    def pop(self, max_items: int) -> None:
        live = [item for item in self.waiting if item.outcome is None and item.deadline_s > self.now_s]
        batch, expired = self.queue.pop(self.now_s, max_items)
        assert len(batch) == min(max_items, len(live))  # never over the cap, never idle while work waits
        assert batch == sorted(live, key=lambda item: item.deadline_s)[: len(batch)]
        assert all(item.deadline_s <= self.now_s for item in expired)
        for item in batch:
            item.outcome = Outcome.DONE
        for item in expired:
            assert item.outcome is None
            item.outcome = Outcome.EXPIRED
        self.ended.update(batch + expired)
        self.waiting = [item for item in self.waiting if item.outcome is None or self._still_queued(item)]

    def _still_queued(self, item: Item) -> bool:
        # A cancelled item stays until a pop passes it; ask the queue which ones that were.
        return any(queued is item for _, _, queued in self.queue._heap)

    @rule(max_delay_s=st.floats(0, 5))
    def a_free_lane_asks_for_the_delay(self, max_delay_s: float) -> None:
        delay_s = self.queue.delay_s(self.now_s, MAX_BATCH, max_delay_s)
        if not self.waiting:
            assert delay_s is None
        elif len(self.waiting) >= MAX_BATCH or max_delay_s == 0:
            assert delay_s == 0
        else:
            oldest_s = min(item.enqueued_s for item in self.waiting)
            assert delay_s == max(0.0, max_delay_s - (self.now_s - oldest_s))

    @invariant()
    def bounded_and_accounted_for(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.reserved == self.reserved
        assert len(self.queue) + self.queue.reserved <= CAPACITY
        open_items = sum(item.outcome is None for item in self.waiting)
        assert self.admitted == self.reserved + self.released + open_items + len(self.ended)
        assert all(count == 1 for count in self.ended.values())

    def teardown(self) -> None:
        batch, expired = self.queue.pop(self.now_s, CAPACITY)
        self.ended.update(batch + expired)
        assert len(self.queue) == 0
        assert all(count == 1 for count in self.ended.values())
        assert self.admitted == self.reserved + self.released + len(self.ended)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["good", "poisoned", "expired", "cancelled", "undecodable"]), max_size=40),
    lanes=st.integers(1, 3),
    max_batch_size=st.integers(1, 5),
)
def test_every_admitted_item_is_settled_exactly_once(fates: list[str], lanes: int, max_batch_size: int) -> None:
    mailbox, tally = Mailbox(), Tally()
    engine = Engine(
        FakeSession(),
        lanes=lanes,
        max_batch_size=max_batch_size,
        max_queue_delay_s=0.0,
        max_queue_items=64,
        deliver=mailbox.deliver,
        observer=tally,
    )
    engine.start()
    items = [new_item(0.0 if fate == "expired" else 1e12) for fate in fates]
    engine.admit(items)
    for index, (item, fate) in enumerate(zip(items, fates, strict=True)):
        if fate == "undecodable":
            engine.fail(item, ValueError("not an image"))
        else:
            engine.submit(item, pixels_of(str(index), poisoned=fate == "poisoned"))
        if fate == "cancelled":
            engine.abandon([item], Outcome.CANCELLED)
    assert engine.stop(PATIENCE_S)

    wanted = {"good": "done", "poisoned": "failed", "undecodable": "failed", "expired": "expired"}
    for index, (item, fate) in enumerate(zip(items, fates, strict=True)):
        if fate == "cancelled":  # it may have been run before it was cancelled
            assert item.outcome in (Outcome.CANCELLED, Outcome.DONE)
        else:
            assert item.outcome == wanted[fate]
        if item.outcome is Outcome.DONE:
            assert item.token_ids is not None
            assert [int(value) - 1 for value in item.token_ids if value] == [int(char) for char in str(index)]
    assert all(size <= max_batch_size for size in tally.batches)
    assert tally.counts["admitted"] == sum(tally.counts[str(outcome)] for outcome in Outcome)
    assert len(mailbox.items) == len(items) - tally.counts["cancelled"]
