from __future__ import annotations

from itertools import pairwise

import pytest

from service.engine.queue import BULK_EVERY, MIN_DEAD, DeadlineQueue
from service.engine.types import Item, Stage
from tests.fakes import new_item


def queue_of(*items: Item, capacity: int = 99) -> DeadlineQueue:
    """A queue in which these items wait since second 0."""
    queue = DeadlineQueue(capacity)
    for item in items:
        queue.reserve(item)
        queue.push(item, now_s=0.0)
    return queue


def take_all(queue: DeadlineQueue) -> list[Item]:
    taken = []
    while (item := queue.first(bulk_may_lead=True)) is not None:
        queue.take(item)
        taken.append(item)
    return taken


def test_slots_are_held_from_reservation_until_the_item_is_taken() -> None:
    queue = DeadlineQueue(capacity=1)
    item = new_item()
    queue.reserve(item)
    with pytest.raises(ValueError, match="no slot"):
        queue.reserve(new_item())
    queue.push(item, now_s=0.0)
    assert (queue.free, queue.reserved, len(queue)) == (0, 0, 1)
    queue.take(item)
    assert queue.free == 1


def test_pushing_needs_a_reservation() -> None:
    with pytest.raises(ValueError, match="reserved"):
        DeadlineQueue(capacity=1).push(new_item(), now_s=0.0)


def test_an_item_that_ends_gives_its_slot_back_once() -> None:
    decoding, waiting = new_item(), new_item()
    queue = queue_of(waiting, capacity=2)
    queue.reserve(decoding)
    for item in (decoding, waiting, decoding, waiting):
        queue.remove(item)
    assert (queue.free, queue.reserved, len(queue)) == (2, 0, 0)
    assert queue.first(bulk_may_lead=True) is None


def test_goes_by_deadline_then_by_arrival_across_classes() -> None:
    late, first, second, urgent = new_item(9.0), new_item(5.0, bulk=True), new_item(5.0), new_item(1.0)
    assert take_all(queue_of(late, first, second, urgent)) == [urgent, first, second, late]


@pytest.mark.parametrize("bulk", [False, True])
def test_equal_deadlines_of_one_class_go_in_the_order_in_which_they_came(bulk: bool) -> None:
    items = [new_item(5.0, bulk=bulk) for _ in range(9)]
    assert take_all(queue_of(*items)) == items


def test_expired_items_are_ended_and_given_out() -> None:
    expired, also, live = new_item(1.0), new_item(0.5, bulk=True), new_item(2.0)
    queue = queue_of(expired, also, live)
    assert queue.expire(now_s=1.0) == [expired, also]
    assert expired.stage is Stage.ENDED
    assert take_all(queue) == [live]


def test_bulk_keeps_its_share_of_a_flood_of_single_crops() -> None:
    singles = [new_item(1.0) for _ in range(40)]
    bulk = [new_item(100.0, bulk=True) for _ in range(4)]
    taken = take_all(queue_of(*bulk, *singles))
    places = [place for place, item in enumerate(taken, start=1) if item.bulk]
    assert len(places) == 4
    assert all(later - earlier <= BULK_EVERY for earlier, later in pairwise([0, *places]))


def test_ended_items_are_swept_before_they_are_the_majority() -> None:
    items = [new_item(float(index)) for index in range(1000)]
    queue = queue_of(*items, capacity=1000)
    for item in items[1:]:
        queue.remove(item)
    assert len(queue._classes[False].heap) <= 2 + MIN_DEAD
    assert take_all(queue) == items[:1]


def test_age_follows_the_oldest_item_left() -> None:
    first, second = new_item(1.0), new_item(2.0)
    queue = queue_of(first)
    queue.reserve(second)
    queue.push(second, now_s=0.5)
    assert queue.oldest_age_s(0.75) == 0.75
    queue.take(first)
    assert queue.oldest_age_s(0.75) == 0.25
    queue.remove(second)
    assert queue.oldest_age_s(0.75) == 0.0


def test_clients_take_turns_each_with_its_earliest_deadline_first() -> None:
    hog = [new_item(float(index), client="hog") for index in range(6)]
    modest = [new_item(100.0 - index, client="modest") for index in range(3)]
    taken = take_all(queue_of(*hog, *modest))
    assert taken == [hog[0], modest[2], hog[1], modest[1], hog[2], modest[0], *hog[3:]]


def test_a_short_deadline_takes_bulk_before_the_single_crops_of_its_own_client_only() -> None:
    bulk, single = new_item(1.0, bulk=True, client="a"), new_item(5.0, client="a")
    assert take_all(queue_of(bulk, single)) == [bulk, single]
    bulk, single = new_item(1.0, bulk=True, client="a"), new_item(5.0, client="b")
    assert take_all(queue_of(bulk, single)) == [single, bulk]


def test_places_are_shared_when_they_are_short() -> None:
    queue = queue_of(*(new_item(client="hog") for _ in range(12)), capacity=12)
    assert not queue.has_room("hog", 1)
    assert queue.share_of("modest", 2) == 10  # it wants but two, and the rest is the other's
    assert queue.share_of("modest", 50) == 6
    assert [queue.has_room("modest", n_items) for n_items in (1, 6, 7)] == [True, True, False]
    for _ in range(2):
        queue.reserve(new_item(client="modest"))
    assert [queue.has_room("modest", n_items) for n_items in (4, 5)] == [True, False]
    assert [queue.has_room("third", n_items) for n_items in (4, 5)] == [True, False]
    for client in range(4):
        queue.reserve(new_item(client=client))
    assert not queue.has_room("late", 1)  # clients that are many have no more than half as many places again
    with pytest.raises(ValueError, match="no slot"):
        queue.reserve(new_item(client="late"))


def test_who_holds_nothing_may_have_one_request_larger_than_its_share() -> None:
    queue = queue_of(*(new_item(client=client) for client in "ab" * 6), capacity=12)
    assert queue.share_of("c", 5) == 4
    assert queue.has_room("c", 5)
    queue.reserve(new_item(client="c"))
    assert not queue.has_room("c", 4)


def test_who_leaves_is_forgotten() -> None:
    items = [new_item(client=client) for client in range(5)]
    queue = queue_of(*items)
    assert queue.n_holders == 5
    queue.demote(decoding := new_item(client=5))  # never admitted
    queue.reserve(decoding)
    queue.demote(decoding)
    for item in [*items, decoding]:
        queue.remove(item)
    assert (queue.n_holders, queue.reserved, len(queue)) == (0, 0, 0)
    assert not queue.held_by_others(None)
