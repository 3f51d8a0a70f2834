from __future__ import annotations

import pytest

from service.engine.queue import DeadlineQueue
from service.engine.types import Outcome
from tests.fakes import new_item


def test_reserves_all_or_none() -> None:
    queue = DeadlineQueue(capacity=3)
    assert queue.reserve(2)
    assert not queue.reserve(2)
    assert queue.reserve(1)
    assert queue.reserved == 3


def test_waiting_items_count_against_the_capacity_until_they_are_popped() -> None:
    queue = DeadlineQueue(capacity=1)
    assert queue.reserve(1)
    queue.push(new_item(), now_s=0.0)
    assert not queue.reserve(1)
    queue.pop(now_s=0.0, max_items=1)
    assert queue.reserve(1)


def test_pushing_or_releasing_needs_a_reservation() -> None:
    queue = DeadlineQueue(capacity=1)
    with pytest.raises(ValueError, match="reserved"):
        queue.release()
    with pytest.raises(ValueError, match="reserved"):
        queue.push(new_item(), now_s=0.0)


def test_pops_by_deadline_then_by_arrival() -> None:
    queue = DeadlineQueue(capacity=9)
    queue.reserve(4)
    late, first, second, urgent = new_item(9.0), new_item(5.0), new_item(5.0), new_item(1.0)
    for item in (late, first, second, urgent):
        queue.push(item, now_s=0.0)
    assert queue.pop(now_s=0.5, max_items=3) == ([urgent, first, second], [])
    assert queue.pop(now_s=0.5, max_items=3) == ([late], [])


def test_expired_items_leave_at_pop_and_take_no_place_in_the_batch() -> None:
    queue = DeadlineQueue(capacity=9)
    queue.reserve(2)
    expired, live = new_item(1.0), new_item(2.0)
    queue.push(expired, now_s=0.0)
    queue.push(live, now_s=0.0)
    assert queue.pop(now_s=1.0, max_items=1) == ([live], [expired])


def test_settled_items_are_skipped_at_pop() -> None:
    queue = DeadlineQueue(capacity=9)
    queue.reserve(2)
    gone, live = new_item(1.0), new_item(2.0)
    queue.push(gone, now_s=0.0)
    queue.push(live, now_s=0.0)
    gone.outcome = Outcome.CANCELLED
    assert queue.pop(now_s=0.0, max_items=1) == ([live], [])


def test_delay_is_measured_by_the_oldest_item_and_ends_with_a_full_batch() -> None:
    queue = DeadlineQueue(capacity=9)
    assert queue.delay_s(0.0, max_items=2, max_delay_s=5.0) is None
    queue.reserve(2)
    queue.push(new_item(), now_s=10.0)
    assert queue.delay_s(12.0, max_items=2, max_delay_s=5.0) == 3.0
    assert queue.delay_s(16.0, max_items=2, max_delay_s=5.0) == 0.0
    assert queue.delay_s(12.0, max_items=2, max_delay_s=0.0) == 0.0
    queue.push(new_item(), now_s=12.0)
    assert queue.delay_s(12.0, max_items=2, max_delay_s=5.0) == 0.0


def test_age_follows_the_oldest_item_left() -> None:
    queue = DeadlineQueue(capacity=9)
    queue.reserve(2)
    queue.push(new_item(1.0), now_s=0.0)
    queue.push(new_item(2.0), now_s=0.5)
    assert queue.oldest_age_s(0.75) == 0.75
    queue.pop(now_s=0.75, max_items=1)
    assert queue.oldest_age_s(0.75) == 0.25
    queue.pop(now_s=0.75, max_items=1)
    assert queue.oldest_age_s(0.75) == 0.0
