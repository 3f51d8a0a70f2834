from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.runs import run_checked
from service.engine.scheduler import EngineLimits
from service.engine.types import EngineDownError, InferenceError, Item, Outcome, QueueFullError
from tests.fakes import PATIENCE_S, FakeClock, FakeSession, LaneKilled, Mailbox, Tally, new_item, read_toy
from tests.toy_artifact import STEPS, pixels_of


class Bench:
    """An engine with everything around it faked."""

    def __init__(self, **options: Any) -> None:
        self.session, self.mailbox, self.tally = FakeSession(), Mailbox(), Tally()
        cost = CostModel(options.pop("max_batch_size", 4))
        niceness = options.pop("lane_niceness", 0)
        clock, alone = options.pop("clock", time.monotonic), options.pop("alone", None)
        self.cost = cost
        limits = EngineLimits(**{"lanes": 1, "max_queue_items": 64, **options})
        self.engine = Engine(
            self.session,
            cost,
            limits,
            deliver=self.mailbox.deliver,
            observer=self.tally,
            alone=alone,
            clock=clock,
            lane_niceness=niceness,
        )

    def post(self, *texts: str, deadline_s: float = 1e12, poisoned: bool = False) -> list[Item]:
        items = [new_item(deadline_s) for _ in texts]
        self.engine.admit(items)
        for item, text in zip(items, texts, strict=True):
            self.engine.submit(item, pixels_of(text, poisoned=poisoned))
        return items


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.engine.start()
    yield bench
    bench.session.gate.set()
    assert bench.engine.stop(PATIENCE_S)


def ids_of(item: Item) -> list[int]:
    assert item.token_ids is not None
    return [int(value) for value in item.token_ids if value]


def test_an_idle_lane_runs_a_single_item_at_once(bench: Bench) -> None:
    [item] = bench.post("ab")
    bench.mailbox.wait_for(1)
    assert item.outcome is Outcome.DONE
    assert ids_of(item) == [11, 12]
    assert bench.session.batches == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="no priorities of threads")
@pytest.mark.parametrize("niceness", [0, 3])
def test_lanes_give_way_to_the_thread_that_started_them(niceness: int) -> None:
    bench = Bench(lane_niceness=niceness)
    seen: list[int] = []

    def answer(crops: Any) -> Any:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return read_toy(crops)

    bench.session.answer = answer
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    bench.engine.start()
    bench.post("a")
    bench.mailbox.wait_for(1)
    assert bench.engine.stop(PATIENCE_S)
    assert seen == [before + niceness]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_refusal_can_be_foretold_and_is_not_counted() -> None:
    bench = Bench(max_queue_items=2)
    assert bench.engine.refusal_of(3, True, 1.0) is None  # not started: `admit` says so
    bench.engine.start()
    refusal = bench.engine.refusal_of(3, True, 1.0)
    assert refusal is not None
    with pytest.raises(QueueFullError) as raised:
        bench.engine.admit([new_item(bulk=True) for _ in range(3)])
    told = raised.value
    assert (refusal.refusal, refusal.wait_s, refusal.retry_after_s) == (told.refusal, told.wait_s, told.retry_after_s)
    assert bench.engine.refusal_of(2, True, 1.0) is None
    assert bench.tally.counts == {"queue_full": 3}
    assert bench.engine.stop(PATIENCE_S)


def test_items_accumulate_while_the_lane_is_busy_up_to_the_cap(bench: Bench) -> None:
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    bench.post(*"1234567")
    assert bench.engine.depth == 7
    bench.session.gate.set()
    bench.mailbox.wait_for(8)
    assert bench.session.batches == [1, 4, 3]
    assert [ids_of(item) for item in bench.mailbox.items] == [[value] for value in range(1, 9)]


def test_urgent_items_overtake(bench: Bench) -> None:
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    patient = bench.post(*"abcd", deadline_s=2e12)
    urgent = bench.post("z", deadline_s=1e12)
    bench.session.gate.set()
    bench.mailbox.wait_for(6)
    assert bench.mailbox.items[1:] == [*urgent, *patient]


def test_a_poisoned_crop_fails_alone(bench: Bench) -> None:
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    good = bench.post("a", "b")
    [bad] = bench.post("c", poisoned=True)
    bench.session.gate.set()
    bench.mailbox.wait_for(4)
    assert bad.outcome is Outcome.FAILED
    assert isinstance(bad.error, InferenceError)
    assert [ids_of(item) for item in good] == [[11], [12]]
    assert bench.session.batches == [1, 3, 1, 1, 1]
    assert bench.engine.alive


@pytest.mark.parametrize(
    "answer",
    [
        (np.zeros((3, STEPS), np.int64), np.zeros((3, STEPS), np.float32)),
        (np.zeros((2, STEPS), np.int64), np.zeros((2, STEPS - 1), np.float32)),
        (np.zeros((2,), np.int64), np.zeros((2,), np.float32)),
        (np.zeros((2, STEPS), np.int64), np.full((2, STEPS), np.nan, np.float32)),
        (np.zeros((2, STEPS), np.int64), np.full((2, STEPS), 1.5, np.float32)),
    ],
)
def test_an_answer_that_cannot_be_right_is_an_error(answer: tuple[Any, Any]) -> None:
    session = FakeSession()
    session.answer = lambda _crops: answer
    with pytest.raises(InferenceError):
        run_checked(session, [pixels_of("a"), pixels_of("b")])


def test_expired_items_are_not_run() -> None:
    now_s = [0.0]
    bench = Bench(clock=lambda: now_s[0])
    bench.engine.start()
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    [late] = bench.post("a", deadline_s=5.0)
    [live] = bench.post("b", deadline_s=50.0)
    now_s[0] = 6.0
    bench.session.gate.set()
    bench.mailbox.wait_for(3)
    assert bench.engine.stop(PATIENCE_S)
    assert (late.outcome, live.outcome) == (Outcome.EXPIRED, Outcome.DONE)
    assert bench.session.batches == [1, 1]


def test_abandoned_items_are_neither_run_nor_delivered(bench: Bench) -> None:
    bench.session.gate.clear()
    [running] = bench.post("0")
    bench.session.wait_entered()
    gone, live = bench.post("a", "b")
    bench.engine.abandon([gone, running], Outcome.CANCELLED)
    bench.session.gate.set()
    bench.mailbox.wait_for(1)
    assert bench.mailbox.items == [live]
    assert bench.session.batches == [1, 1]
    assert bench.tally.counts == {"admitted": 3, "cancelled": 2, "done": 1}


def test_admission_is_all_or_none_and_counts_crops_being_decoded(bench: Bench) -> None:
    items = [new_item() for _ in range(63)]
    bench.engine.admit(items)
    with pytest.raises(QueueFullError):
        bench.engine.admit([new_item(), new_item()])
    bench.engine.admit([last := new_item()])
    for item in [*items, last]:
        bench.engine.fail(item, ValueError("not an image"))
    assert bench.tally.counts == {"admitted": 64, "queue_full": 2, "failed": 64}
    bench.post("a")
    bench.mailbox.wait_for(65)


def test_a_lane_waits_for_company_only_as_long_as_the_batch_is_not_full() -> None:
    bench = Bench(max_queue_delay_s=3600.0)
    bench.engine.start()
    bench.post("a", "b", "c")
    assert bench.session.batches == []
    bench.post("d")
    bench.mailbox.wait_for(4)
    assert bench.session.batches == [4]
    bench.post("e")
    assert bench.engine.stop(PATIENCE_S)  # nothing is held back once the engine stops
    assert bench.session.batches == [4, 1]


def test_lanes_run_at_the_same_time() -> None:
    bench = Bench(lanes=3)
    bench.session.gate.clear()
    bench.engine.start()
    bench.post("a", "b", "c")
    for _ in range(3):
        bench.session.wait_entered()
    assert bench.session.batches == [1, 1, 1]
    bench.session.gate.set()
    assert bench.engine.stop(PATIENCE_S)
    assert bench.tally.counts["done"] == 3


def test_stop_runs_what_was_admitted_and_refuses_the_rest(bench: Bench) -> None:
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    bench.post("a", "b")
    bench.engine.admit([decoding := new_item()])
    stopper = threading.Thread(target=bench.engine.stop, args=(PATIENCE_S,))
    stopper.start()
    while True:  # until the stop has begun
        try:
            bench.engine.admit([extra := new_item()])
        except EngineDownError:
            break
        bench.engine.fail(extra, ValueError("only asking"))
    bench.engine.submit(decoding, pixels_of("c"))
    bench.session.gate.set()
    stopper.join(PATIENCE_S)
    assert not stopper.is_alive()
    assert decoding.outcome is Outcome.DONE
    assert bench.tally.counts["done"] == 4


def test_a_lane_that_dies_while_retrying_leaves_nobody_waiting() -> None:
    bench = Bench(max_batch_size=3)
    bench.session.gate.clear()
    bench.engine.start()
    bench.post("0")
    bench.session.wait_entered()
    items = bench.post("a", "b", "c")

    def die(crops: Any) -> Any:
        raise ValueError if len(crops) > 1 else LaneKilled

    bench.session.answer = die
    bench.session.gate.set()
    bench.mailbox.wait_for(4)
    assert {item.outcome for item in items} == {Outcome.FAILED}
    assert not bench.engine.alive


def test_stop_ends_all_lanes_when_the_last_crop_comes_late() -> None:
    bench = Bench(lanes=3)
    bench.engine.start()
    bench.engine.admit([decoding := new_item()])
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(bench.engine.stop(PATIENCE_S)))
    stopper.start()
    while bench.engine._idle_lanes < 3 or not bench.engine._stopping:
        threading.Event().wait(0.001)
    bench.engine.submit(decoding, pixels_of("c"))
    stopper.join(2 * PATIENCE_S)
    assert stopped == [True]
    assert decoding.outcome is Outcome.DONE


def test_stop_gives_up_on_a_stuck_session_and_leaves_nobody_waiting() -> None:
    bench = Bench()
    bench.engine.start()
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    [waiting] = bench.post("a")
    assert not bench.engine.stop(0.0)
    assert waiting.outcome is Outcome.FAILED
    bench.session.gate.set()
    bench.mailbox.wait_for(2)


def test_a_dead_lane_is_noticed_and_nobody_is_left_waiting(bench: Bench) -> None:
    def die(_crops: Any) -> Any:
        raise LaneKilled

    bench.session.gate.clear()
    bench.session.answer = die
    [running] = bench.post("0")
    bench.session.wait_entered()
    [waiting] = bench.post("a")
    bench.engine.admit([decoding := new_item()])
    assert bench.engine.alive
    bench.session.gate.set()
    bench.mailbox.wait_for(2)
    bench.engine.submit(decoding, pixels_of("b"))
    assert not bench.engine.alive
    assert [item.outcome for item in (running, waiting, decoding)] == [Outcome.FAILED] * 3
    with pytest.raises(EngineDownError):
        bench.engine.admit([new_item()])


def test_an_engine_that_was_not_started_takes_nothing() -> None:
    bench = Bench()
    with pytest.raises(EngineDownError):
        bench.post("a")
    assert bench.engine.stop(0.0)


def test_an_item_whose_client_left_frees_its_slot_at_once() -> None:
    bench = Bench(max_queue_items=2)
    bench.session.gate.clear()
    bench.engine.start()
    bench.post("0")
    bench.session.wait_entered()
    [waiting] = bench.post("a")
    bench.engine.admit([decoding := new_item()])
    with pytest.raises(QueueFullError):
        bench.engine.admit([new_item()])
    bench.engine.abandon([waiting, decoding], Outcome.CANCELLED)
    bench.post("b", "c")
    bench.engine.submit(decoding, pixels_of("late"))  # a decode thread had begun with it
    bench.session.gate.set()
    assert bench.engine.stop(PATIENCE_S)
    assert bench.tally.counts == {"admitted": 5, "queue_full": 1, "cancelled": 2, "done": 3}
    assert bench.engine.in_flight == 0


def test_the_lane_is_free_before_anyone_is_answered() -> None:
    waits_s: list[float] = []
    bench = Bench(max_batch_size=1)
    deliver = bench.mailbox.deliver

    def ask_at_once(items: Any) -> None:
        waits_s.append(bench.engine.predicted_wait_s)
        deliver(items)

    bench.engine._deliver = ask_at_once
    bench.engine._scheduler.cost.seed({1: 5.0})
    bench.engine.start()
    bench.post("a")
    bench.mailbox.wait_for(1)
    bench.post("b", poisoned=True)
    bench.mailbox.wait_for(2)
    assert bench.engine.stop(PATIENCE_S)
    assert waits_s == [0.0, 0.0]


@pytest.fixture
def wide() -> FakeSession:
    """A session for items that are alone."""
    return FakeSession()


@pytest.fixture
def bench_with_wide(wide: FakeSession) -> Iterator[Bench]:
    bench = Bench(alone=wide, lanes=2)
    bench.engine.start()
    yield bench
    bench.session.gate.set()
    wide.gate.set()
    assert bench.engine.stop(PATIENCE_S)


def test_an_item_that_is_alone_has_a_session_of_its_own(bench_with_wide: Bench, wide: FakeSession) -> None:
    for index in range(3):
        [item] = bench_with_wide.post(str(index))
        bench_with_wide.mailbox.wait_for(index + 1)
        assert ids_of(item) == [index + 1]
    assert (wide.batches, bench_with_wide.session.batches) == ([1] * 3, [])
    assert bench_with_wide.tally.counts["done"] == 3


def test_an_item_beside_one_that_runs_is_not_alone(bench_with_wide: Bench, wide: FakeSession) -> None:
    wide.gate.clear()
    bench_with_wide.post("0")
    wide.wait_entered()
    bench_with_wide.post("1")
    bench_with_wide.mailbox.wait_for(1)
    assert (wide.batches, bench_with_wide.session.batches) == ([1], [1])


def test_an_item_beside_one_that_is_being_decoded_is_not_alone(bench_with_wide: Bench, wide: FakeSession) -> None:
    bench_with_wide.engine.admit([decoding := new_item()])
    bench_with_wide.post("1")
    bench_with_wide.mailbox.wait_for(1)
    bench_with_wide.engine.submit(decoding, pixels_of("2"))
    bench_with_wide.mailbox.wait_for(2)
    assert (wide.batches, bench_with_wide.session.batches) == ([1], [1])


def test_a_run_with_all_cores_teaches_nothing_about_the_lanes_and_is_counted(wide: FakeSession) -> None:
    clock = FakeClock()
    bench = Bench(alone=wide, clock=clock)
    bench.cost.seed({1: 1.0, 4: 2.0})
    for session in (wide, bench.session):
        session.answer = lambda crops: (clock.advance(0.6), read_toy(crops))[1]
    bench.engine.start()
    bench.post("0")
    bench.mailbox.wait_for(1)
    assert bench.cost.duration_s(1) == 1.0
    bench.engine.admit([decoding := new_item()])  # beside it nobody is alone
    bench.post(*"12")
    bench.mailbox.wait_for(3)
    bench.engine.fail(decoding, ValueError("not an image"))
    assert bench.engine.stop(PATIENCE_S)
    assert bench.cost.duration_s(1) < 1.0
    assert (wide.batches, sum(bench.session.batches)) == ([1], 2)
    assert bench.tally.batches == wide.batches + bench.session.batches


def test_an_item_that_failed_alone_is_tried_as_any_other(bench_with_wide: Bench, wide: FakeSession) -> None:
    def fail(_crops: Any) -> Any:
        raise RuntimeError("this session is broken")

    wide.answer = fail
    [good] = bench_with_wide.post("7")
    bench_with_wide.mailbox.wait_for(1)
    [poisoned] = bench_with_wide.post("7", poisoned=True)
    bench_with_wide.mailbox.wait_for(2)
    assert (good.outcome, ids_of(good)) == (Outcome.DONE, [8])
    assert (poisoned.outcome, type(poisoned.error)) == (Outcome.FAILED, InferenceError)
    assert (wide.batches, bench_with_wide.session.batches) == ([1, 1], [1, 1])


def follower_of(leader: Item, text: str, *, poisoned: bool = False) -> Item:
    item = new_item(leader.deadline_s, leader.bulk, leader.client)
    item.crop, item.is_follower = pixels_of(text, poisoned=poisoned), True
    return item


def test_followers_are_run_and_delivered_but_not_counted_as_crops(bench: Bench) -> None:
    bench.session.gate.clear()
    [leader] = bench.post("a")
    bench.session.wait_entered()
    followers = [follower_of(leader, "b"), follower_of(leader, "c", poisoned=True)]
    bench.engine.follow(leader, followers)
    assert (bench.engine.in_flight, bench.engine.depth) == (3, 2)
    bench.session.gate.set()
    bench.mailbox.wait_for(3)
    assert [item.outcome for item in (leader, *followers)] == [Outcome.DONE, Outcome.DONE, Outcome.FAILED]
    assert bench.tally.counts == {"admitted": 1, "done": 1}
    later = follower_of(leader, "d")
    bench.engine.follow(leader, [later])  # what the first ones said may ask for more
    bench.mailbox.wait_for(4)
    assert ids_of(later) == [14]


def test_followers_are_let_in_although_the_queue_is_full_and_newcomers_are_not(bench: Bench) -> None:
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    items = bench.post(*["a"] * 64)
    bench.engine.follow(items[0], [follower_of(items[0], "b") for _ in range(80)])
    assert bench.engine.depth == 144
    assert bench.engine.refusal_of(1, False, 1e12) is not None
    bench.session.gate.set()
    bench.mailbox.wait_for(145)
    assert bench.engine.in_flight == 0


def test_followers_are_abandoned_with_their_leader_even_if_that_is_done(bench: Bench) -> None:
    bench.session.gate.clear()
    [leader] = bench.post("a")
    bench.session.wait_entered()
    other = follower_of(leader, "b")
    bench.engine.follow(leader, [other])
    bench.engine.abandon([leader], Outcome.CANCELLED)
    assert (leader.outcome, other.outcome) == (Outcome.CANCELLED, Outcome.CANCELLED)
    assert bench.engine.depth == 0
    late = follower_of(leader, "c")
    bench.engine.follow(leader, [late])
    assert late.outcome is Outcome.FAILED
    assert bench.tally.counts == {"admitted": 1, "cancelled": 1}


def test_followers_that_come_when_the_engine_has_stopped_end_at_once() -> None:
    bench = Bench()
    bench.engine.start()
    [leader] = bench.post("a")
    bench.mailbox.wait_for(1)
    assert bench.engine.stop(PATIENCE_S)
    late = follower_of(leader, "b")
    bench.engine.follow(leader, [late])
    assert late.outcome is Outcome.FAILED
    assert isinstance(late.error, EngineDownError)
    assert bench.mailbox.items[-1] is late
    assert bench.engine.in_flight == 0


def test_followers_expire_as_their_leader_does() -> None:
    now_s = [0.0]
    bench = Bench(clock=lambda: now_s[0])
    bench.engine.start()
    bench.session.gate.clear()
    bench.post("0")
    bench.session.wait_entered()
    [leader] = bench.post("a", deadline_s=5.0)
    other = follower_of(leader, "b")
    bench.engine.follow(leader, [other])
    now_s[0] = 6.0
    bench.session.gate.set()
    bench.mailbox.wait_for(3)
    assert bench.engine.stop(PATIENCE_S)
    assert (leader.outcome, other.outcome) == (Outcome.EXPIRED, Outcome.EXPIRED)
    assert bench.tally.counts == {"admitted": 2, "done": 1, "expired": 1}
