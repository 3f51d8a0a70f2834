from __future__ import annotations

import numpy as np
import pytest

from service.engine.admission import PESSIMISM, Budgets
from service.engine.cost import CostModel
from service.engine.scheduler import BULK_YIELDS_S, Limits, Scheduler
from service.engine.types import Item, Outcome, QueueFullError, Refusal
from tests.fakes import new_item

CROP = np.zeros((1, 1, 3), np.uint8)


def scheduler_of(*items: Item, per_run_s: float = 1.0, per_item_s: float = 1.0, cap: int = 8, **limits: object) -> Scheduler:
    """A scheduler in which these items wait since second 0; a run of n takes `per_run_s + n * per_item_s`."""
    cost = CostModel(8)
    cost.seed({size: per_run_s + per_item_s * size for size in (1, 8)})
    cost.cap = cap
    scheduler = Scheduler(cost, Limits(**{"lanes": 1, "max_queue_items": 99, **limits}))  # type: ignore[arg-type]
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


def test_slow_decoding_counts_as_waiting() -> None:
    scheduler = scheduler_of(per_run_s=0.0, per_item_s=1e-4, budgets=Budgets(single_s=0.5, bulk_s=0.5))
    for second in range(200):  # photos, one after the other, a second each
        scheduler.admit([item := new_item()], now_s=float(second))
        scheduler.submit(item, CROP, now_s=second + 1.0)
        scheduler.take(second + 1.0, idle_lanes=1)
        scheduler.ran(1)
        scheduler.settle(item, Outcome.DONE)
    scheduler.admit([new_item()], now_s=300.0)
    with pytest.raises(QueueFullError):
        scheduler.admit([new_item()], now_s=300.0)


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
