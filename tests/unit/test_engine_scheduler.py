from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest

from service.engine.admission import PESSIMISM, Budgets
from service.engine.cost import CostModel
from service.engine.scheduler import BULK_YIELDS_S, EngineLimits, Scheduler
from service.engine.types import Item, QueueFullError, Refusal
from tests.fakes import new_item

CROP = np.zeros((1, 1, 3), np.uint8)


def scheduler_of(*items: Item, per_run_s: float = 1.0, per_item_s: float = 1.0, cap: int = 8, **limits: object) -> Scheduler:
    """A scheduler in which these items wait since second 0; a run of n takes `per_run_s + n * per_item_s`."""
    cost = CostModel(8)
    cost.seed({size: per_run_s + per_item_s * size for size in (1, 8)})
    cost.cap = cap
    scheduler = Scheduler(cost, EngineLimits(**{"lanes": 1, "max_queue_items": 99, **limits}))  # type: ignore[arg-type]
    for item in items:
        deadline_s, item.deadline_s = item.deadline_s, 1e12  # let in whatever its deadline
        scheduler.admit([item], now_s=0.0)
        item.deadline_s = deadline_s
        scheduler.submit(item, CROP, now_s=0.0)
    return scheduler


def test_a_batch_is_as_large_as_its_earliest_deadline_allows() -> None:
    items = [new_item(4.5), *(new_item() for _ in range(5))]
    assert scheduler_of(*items).take(0.0, idle_lanes=1) == (items[:3], [])


def test_an_item_that_is_too_late_anyway_holds_nobody_up_and_makes_nobody_late() -> None:
    hopeless, urgent, patient = new_item(1.0), new_item(3.5), new_item()
    scheduler = scheduler_of(hopeless, urgent, patient)
    assert scheduler.take(0.0, idle_lanes=1) == ([hopeless, urgent], [])
    hopeless, alone = new_item(1.0), new_item(2.0)
    assert scheduler_of(hopeless, alone).take(0.0, idle_lanes=1) == ([hopeless], [])


def test_idle_lanes_share_what_waits() -> None:
    items = [new_item(float(100 + index)) for index in range(5)]
    scheduler = scheduler_of(*items, lanes=2)
    assert scheduler.take(0.0, idle_lanes=2) == (items[:3], [])
    assert scheduler.take(0.0, idle_lanes=1) == (items[3:], [])


def test_bulk_keeps_runs_short_while_single_crops_come() -> None:
    bulk = [new_item(1e3, bulk=True) for _ in range(8)]
    scheduler = scheduler_of(*bulk, per_run_s=5.0)
    scheduler.admit([single := new_item()], now_s=0.0)
    assert len(scheduler.take(0.0, idle_lanes=1)[0]) == 5  # 5 + 5 s, at most 1.75 times 6 s
    scheduler.submit(single, CROP, now_s=0.0)
    assert len(scheduler.take(BULK_YIELDS_S + 0.1, idle_lanes=1)[0]) == 4  # all there is


def test_without_single_crops_bulk_fills_batches() -> None:
    bulk = [new_item(1e3, bulk=True) for _ in range(8)]
    assert scheduler_of(*bulk, per_run_s=5.0).take(0.0, idle_lanes=1) == (bulk, [])


def test_a_full_batch_does_not_wait_for_company() -> None:
    scheduler = scheduler_of(new_item(), new_item(), cap=3, max_queue_delay_s=5.0)
    assert scheduler.hold_s(1.0) == 4.0
    assert scheduler.hold_s(1.0, max_delay_s=0.0) == 0.0
    assert scheduler.hold_s(6.0) == 0.0
    scheduler.admit([item := new_item()], now_s=1.0)
    scheduler.submit(item, CROP, now_s=1.0)
    assert scheduler.hold_s(1.0) == 0.0


def test_nobody_waits_for_company_until_it_is_too_late() -> None:
    scheduler = scheduler_of(new_item(deadline_s=3.0), per_run_s=1.0, cap=8, max_queue_delay_s=5.0)
    assert scheduler.hold_s(0.0) == pytest.approx(3.0 - scheduler.cost.duration_s(1))
    assert scheduler.hold_s(2.5) == 0.0


def test_refuses_what_would_be_read_too_late_and_says_when_to_come_again() -> None:
    scheduler = scheduler_of(per_run_s=0.0, cap=1, budgets=Budgets(single_s=5.0, bulk_s=50.0))
    for _ in range(3):  # the first has a free lane; 1 s each, and a third more in case
        scheduler.admit([new_item()], now_s=0.0)
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item()], now_s=0.0)
    assert (refused.value.refusal, refused.value.wait_s) == (Refusal.PREDICTED_WAIT, 3.0)
    assert refused.value.retry_after_s == pytest.approx(4 * PESSIMISM - 5.0)
    scheduler.admit([new_item(1e3, bulk=True) for _ in range(8)], now_s=0.0)  # bulk may wait longer
    with pytest.raises(QueueFullError):
        scheduler.admit([new_item(10.0, bulk=True) for _ in range(8)], now_s=0.0)  # but not beyond its deadline


def test_a_lane_whose_run_has_ended_is_free_for_the_next_request() -> None:
    scheduler = scheduler_of(cap=1, lanes=2, budgets=Budgets(single_s=0.5, bulk_s=0.5))  # no run ends within that
    scheduler.began(1)
    scheduler.began(1)
    scheduler.ran(1)
    scheduler.ran(1)
    scheduler.admit([new_item()], now_s=0.0)
    scheduler.admit([new_item()], now_s=0.0)  # one lane for each
    with pytest.raises(QueueFullError):
        scheduler.admit([new_item()], now_s=0.0)


def test_bulk_with_an_earlier_deadline_is_ahead_of_a_single_crop() -> None:
    bulk = [new_item(20.0, bulk=True) for _ in range(6)]
    scheduler = scheduler_of(*bulk, per_run_s=0.0, cap=1, budgets=Budgets(single_s=5.0, bulk_s=50.0))
    scheduler.take(0.0, idle_lanes=1)
    scheduler.admit([new_item(10.0)], now_s=0.0)  # overtakes it
    with pytest.raises(QueueFullError):
        scheduler.admit([new_item(30.0)], now_s=0.0)


def test_refuses_what_does_not_fit_and_says_when_it_will() -> None:
    scheduler = scheduler_of(new_item(), new_item(), per_run_s=0.0, cap=1, max_queue_items=3)
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item(bulk=True) for _ in range(4)], now_s=0.0)
    assert (refused.value.refusal, refused.value.retry_after_s) == (Refusal.QUEUE_FULL, 3.0)


class SlowDecoding:
    """Decode threads with work for so many seconds ahead of everybody, and ahead of one client."""

    def __init__(self, backlog_s: float, wait_of_modest_s: float) -> None:
        self.waits_s = {"hog": backlog_s, "modest": wait_of_modest_s}

    def backlog_s(self, bulk: bool) -> float:
        return max(self.waits_s.values()) if bulk else 0.0

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        return self.waits_s[str(client)] if bulk else 0.0


def test_slow_decoding_counts_as_waiting_for_those_who_wait_for_it() -> None:
    decoding = SlowDecoding(backlog_s=3.0, wait_of_modest_s=0.1)
    limits = EngineLimits(lanes=1, max_queue_items=99, budgets=Budgets(single_s=0.5, bulk_s=0.5))
    scheduler = Scheduler(CostModel(8), limits, decoding)
    scheduler.admit([new_item(bulk=True, client="hog") for _ in range(8)], now_s=0.0)  # a lane is free
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item(bulk=True, client="hog") for _ in range(8)], now_s=0.0)
    assert (refused.value.refusal, refused.value.wait_s) == (Refusal.PREDICTED_WAIT, 3.0)
    assert refused.value.retry_after_s == pytest.approx(3.0 * PESSIMISM - 0.5)
    scheduler.admit([new_item(bulk=True, client="modest") for _ in range(8)], now_s=0.0)
    scheduler.admit([new_item(client="hog")], now_s=0.0)


def test_a_single_crop_that_is_slow_to_decode_is_not_ahead_of_others_meanwhile() -> None:
    scheduler = scheduler_of(per_run_s=0.0, cap=1, budgets=Budgets(single_s=3.0, bulk_s=50.0))
    slow = [new_item(), new_item()]
    for item in slow:
        scheduler.admit([item], now_s=0.0)
    assert scheduler.predict(1, bulk=False).start_s == 2.0
    for item in slow:
        scheduler.demote(item)
    assert scheduler.predict(1, bulk=False).start_s == 0.0
    for item in slow:
        scheduler.submit(item, CROP, now_s=0.0)
        scheduler.demote(item)  # too late
    assert scheduler.predict(1, bulk=False).start_s == 2.0
    assert scheduler.take(0.0, idle_lanes=1) == (slow[:1], [])


def test_a_client_waits_only_for_its_turn() -> None:
    budgets = Budgets(single_s=4.0, bulk_s=6.0)
    scheduler = scheduler_of(per_run_s=0.0, cap=1, budgets=budgets, max_queue_items=999)
    for _ in range(2):
        scheduler.admit([new_item(client="hog")], now_s=0.0)
    with pytest.raises(QueueFullError):
        scheduler.admit([new_item(client="hog")], now_s=0.0)
    scheduler.admit([new_item(client="modest")], now_s=0.0)  # after one of the other's
    scheduler = scheduler_of(per_run_s=0.0, cap=1, budgets=budgets, max_queue_items=999)
    scheduler.admit([new_item(bulk=True, client="hog") for _ in range(99)], now_s=0.0)
    for client in ("hog", "modest"):
        items = [new_item(50.0, bulk=True, client=client) for _ in range(16)]
        if client == "hog":
            with pytest.raises(QueueFullError):
                scheduler.admit(items, now_s=0.0)
        else:  # they are read in 32 s, in turns with the other's
            scheduler.admit(items, now_s=0.0)
    with pytest.raises(QueueFullError):  # and these would be in 48 s, and a third more in case
        scheduler.admit([new_item(50.0, bulk=True, client="third") for _ in range(16)], now_s=0.0)


def test_who_has_used_its_share_of_the_places_is_told_so_once_others_want_theirs() -> None:
    scheduler = scheduler_of(per_run_s=0.0, max_queue_items=8)
    scheduler.admit([new_item(bulk=True, client="hog") for _ in range(8)], now_s=0.0)  # alone it may have all
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item(client="hog")], now_s=0.0)
    assert refused.value.refusal is Refusal.QUEUE_FULL
    scheduler.admit([new_item(bulk=True, client="modest") for _ in range(2)], now_s=0.0)
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item(client="hog")], now_s=0.0)
    assert refused.value.refusal is Refusal.CLIENT_SHARE
    assert refused.value.retry_after_s > 0
    scheduler.admit([new_item(client="modest")], now_s=0.0)
    with pytest.raises(QueueFullError) as refused:
        scheduler.admit([new_item(bulk=True, client="modest") for _ in range(5)], now_s=0.0)
    assert refused.value.refusal is Refusal.CLIENT_SHARE


def test_bulk_keeps_its_share_of_batches_that_single_crops_keep_short() -> None:
    singles = [new_item(100.0 + index) for index in range(40)]
    bulk = [new_item(1e3, bulk=True) for _ in range(4)]
    scheduler = scheduler_of(*singles, *bulk, per_run_s=0.0, per_item_s=1e-3, cap=4)
    scheduler.admit([new_item()], now_s=0.0)
    taken: list[Item] = []
    while len(taken) < 40:
        taken += scheduler.take(0.0, idle_lanes=1)[0]
    assert sum(item.bulk for item in taken) == 4


def test_bulk_keeps_its_share_of_a_flood_of_items_that_are_too_late_anyway() -> None:
    hopeless = [new_item(1.0) for _ in range(12)]
    tight = new_item(2.5, bulk=True)  # alone it is in time, in company it is not
    scheduler = scheduler_of(*hopeless, tight)
    taken: list[Item] = []
    while tight not in taken:
        taken += scheduler.take(0.0, idle_lanes=1)[0]
    assert len(taken) <= 10
