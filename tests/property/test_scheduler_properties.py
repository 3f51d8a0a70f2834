"""Rules of the scheduler under any course of events, beside a model that is plain lists and recomputes everything."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine.admission import Budgets
from service.engine.cost import CostModel
from service.engine.queue import BULK_EVERY, MIN_DEAD
from service.engine.scheduler import BULK_STRETCH, BULK_YIELDS_S, EngineLimits, Scheduler
from service.engine.types import Item, Outcome, QueueFullError, Refusal, Stage
from tests.fakes import new_item

CAPACITY, MAX_BATCH = 40, 6
ROUNDING = 1e-9
"""Durations that differ by less are equal but for rounding: either decision is right."""
CROP = np.zeros((1, 1, 3), np.uint8)


def order(item: Item) -> tuple[float, int]:
    return item.deadline_s, item.arrival


class SchedulerMachine(RuleBasedStateMachine):
    """Requests, decoding, further reads of a crop, cancellation, time, and lanes that take, fail and finish, in any order."""

    @initialize(
        lanes=st.integers(1, 3),
        per_run_s=st.sampled_from([0.0, 0.01, 0.1]),
        per_item_s=st.sampled_from([0.001, 0.01, 0.1]),
        seeded=st.booleans(),
        max_delay_s=st.sampled_from([0.0, 0.5]),
        budget_s=st.sampled_from([0.05, 0.5, math.inf]),
        n_clients=st.sampled_from([1, 1, 2, 4]),
    )
    def set_up(
        self,
        lanes: int,
        per_run_s: float,
        per_item_s: float,
        seeded: bool,
        max_delay_s: float,
        budget_s: float,
        n_clients: int,
    ) -> None:
        self.cost = CostModel(MAX_BATCH)
        if seeded:
            self.cost.seed({size: per_run_s + per_item_s * size for size in (1, 2, 4, 6)})
        self.lanes, self.max_delay_s = lanes, max_delay_s
        self.scheduler = Scheduler(self.cost, EngineLimits(lanes, CAPACITY, max_delay_s, Budgets(budget_s, 4 * budget_s)))
        self.now_s = 0.0
        self.admitted: list[Item] = []
        self.runs: list[list[Item]] = []
        self.ended: Counter[Item] = Counter()
        self.places_without_bulk = 0
        self.single_seen_s = -math.inf
        self.clients = [None] if n_clients == 1 else list(range(n_clients))
        self.clocks = {False: 0.0, True: 0.0}
        self.turns: Counter[tuple[bool, int | None]] = Counter()

    def at(self, stage: Stage) -> list[Item]:
        return [item for item in self.admitted if item.stage is stage]

    # -- Events -------------------------------------------------------------------------------------------------------

    @rule(
        n_items=st.integers(1, 16),
        bulk=st.booleans(),
        slack_s=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0, 5.0, 30.0]),
        decoded_at_once=st.booleans(),
        data=st.data(),
    )
    def a_request_comes(self, n_items: int, bulk: bool, slack_s: float, decoded_at_once: bool, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        items = [new_item(self.now_s + slack_s, bulk, client) for _ in range(n_items)]
        decoding, waiting = self.at(Stage.DECODING), self.at(Stage.WAITING)
        held = Counter(item.client for item in decoding + waiting)
        free = CAPACITY - held.total()
        in_share = self.is_within_its_share(held, client, n_items)
        refused = self.refusal(items)
        if refused is None:
            assert n_items <= free or in_share
            assert all(item.stage is Stage.DECODING for item in items)
            self.admitted += items
            self.single_seen_s = self.single_seen_s if bulk else self.now_s
            for item in items if decoded_at_once else []:
                self.decode(item)
            return
        assert all(item.stage is Stage.NEW for item in items)  # all or none
        assert min(refused.retry_after_s, refused.wait_s) >= 0
        assert (refused.refusal is Refusal.PREDICTED_WAIT) is (n_items <= free or in_share)
        if refused.refusal is Refusal.CLIENT_SHARE:  # never told to one who is alone, or has nothing
            assert 0 < held[client] < held.total()
        if refused.refusal is Refusal.PREDICTED_WAIT:  # never while a lane is free for it
            assert len(decoding) + len(waiting) + len(self.runs) >= self.lanes

    def is_within_its_share(self, held: Counter[int | None], client: int | None, n_items: int) -> bool:
        """Whether a client may have more places although all are taken: it holds none, or no more than the others are left."""
        if held.total() + n_items > 1.5 * CAPACITY or held[client] == held.total():
            return False
        wants = Counter(held)
        wants[client] += n_items
        level = next(  # the highest to which all can be filled
            level for level in range(CAPACITY, -1, -1) if sum(min(level, places) for places in wants.values()) <= CAPACITY
        )
        return not held[client] or wants[client] <= level

    def decode(self, item: Item) -> None:
        self.joins_the_line(item)
        assert self.scheduler.submit(item, CROP, self.now_s)
        assert item.stage is Stage.WAITING

    def joins_the_line(self, item: Item) -> None:
        """Who comes back to the line has saved up no turns."""
        turn = (item.bulk, item.client)
        if not any((other.bulk, other.client) == turn for other in self.at(Stage.WAITING)):
            self.turns[turn] = max(self.turns[turn], int(self.clocks[item.bulk]))

    def refusal(self, items: list[Item]) -> QueueFullError | None:
        try:
            self.scheduler.admit(items, self.now_s)
        except QueueFullError as error:
            return error
        return None

    @precondition(lambda self: self.at(Stage.DECODING))
    @rule(data=st.data(), n_items=st.integers(1, 12))
    def crops_are_decoded(self, data: st.DataObject, n_items: int) -> None:
        decoding = self.at(Stage.DECODING)
        first = data.draw(st.integers(0, len(decoding) - 1))
        for item in decoding[first : first + n_items]:
            self.decode(item)

    @precondition(lambda self: self.may_lead())
    @rule(data=st.data(), n_reads=st.integers(1, 8))
    def a_crop_is_read_in_further_ways(self, data: st.DataObject, n_reads: int) -> None:
        """Turned, or in parts: as it is decoded, or when what was read of it asks for more. Room or not, none is refused."""
        leader = data.draw(st.sampled_from(self.may_lead()))
        held = self.scheduler.waiting + self.scheduler.decoding
        before = self.scheduler.predict(1, leader.bulk)
        earlier = tuple(leader.followers)
        followers = [new_item(leader.deadline_s, leader.bulk, leader.client) for _ in range(n_reads)]
        for item in followers:
            item.is_follower, item.crop = True, CROP
        self.joins_the_line(leader)
        self.scheduler.follow(leader, followers, self.now_s)
        assert (*earlier, *followers) == tuple(leader.followers)
        assert all(item.stage is Stage.WAITING for item in followers)
        assert self.scheduler.waiting + self.scheduler.decoding == held + n_reads
        assert self.scheduler.predict(1, leader.bulk).start_s >= before.start_s  # newcomers wait for them
        self.admitted += followers

    def may_lead(self) -> list[Item]:
        """Items whose reading may ask for more: let in themselves, and not ended badly."""
        return [item for item in self.admitted if not item.is_follower and item.outcome in (None, Outcome.DONE)]

    @precondition(lambda self: any(item.followers for item in self.admitted))
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.CANCELLED, Outcome.EXPIRED]))
    def nobody_waits_for_a_crop_and_its_further_reads(self, data: st.DataObject, outcome: Outcome) -> None:
        leader = data.draw(st.sampled_from([item for item in self.admitted if item.followers]))
        for item in (leader, *leader.followers):
            if item.outcome is None:
                self.end(item, outcome)
        assert not {leader, *leader.followers} & {*self.at(Stage.DECODING), *self.at(Stage.WAITING)}

    @precondition(lambda self: self.at(Stage.DECODING))
    @rule(data=st.data())
    def an_image_turns_out_to_be_slow(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.at(Stage.DECODING)))
        before = self.scheduler.predict(1, bulk=False).start_s
        self.scheduler.demote(item)
        assert self.scheduler.predict(1, bulk=False).start_s <= before

    @precondition(lambda self: any(item.outcome is None for item in self.admitted))
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def an_item_ends_early(self, data: st.DataObject, outcome: Outcome) -> None:
        item = data.draw(st.sampled_from([item for item in self.admitted if item.outcome is None]))
        held = item.stage in (Stage.DECODING, Stage.WAITING)
        before = self.scheduler.waiting + self.scheduler.decoding
        self.end(item, outcome)
        assert self.scheduler.waiting + self.scheduler.decoding == before - held  # its slot is free at once
        assert not self.scheduler.submit(item, CROP, self.now_s)

    @rule(step_s=st.sampled_from([0.001, 0.05, 0.3, 2.0]))
    def time_passes(self, step_s: float) -> None:
        self.now_s += step_s

    @precondition(lambda self: len(self.runs) < self.lanes)
    @rule()
    def a_free_lane_looks_for_work(self) -> None:
        waiting = sorted(self.at(Stage.WAITING), key=order)
        hold_s = self.scheduler.hold_s(self.now_s)
        if not waiting:
            assert hold_s is None
            return
        age_s = self.now_s - min(item.enqueued_s for item in waiting)
        spare_s = self.lead(waiting).deadline_s - self.now_s - self.cost.duration_s(len(waiting))
        held = len(waiting) < self.cost.cap and age_s < self.max_delay_s and spare_s > 0
        assert hold_s == (min(self.max_delay_s - age_s, spare_s) if held else 0.0)
        if not held:
            self.take(waiting)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), duration_s=st.sampled_from([0.001, 0.05, 0.5]), fails=st.booleans())
    def a_run_ends(self, data: st.DataObject, duration_s: float, fails: bool) -> None:
        batch = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        self.scheduler.ran(len(batch), None if fails else duration_s)
        if not fails:
            self.finish(batch)
            return
        for item in batch:  # one by one
            if item.outcome is None:
                self.scheduler.began(1)
                self.scheduler.ran(1)
                self.end(item, Outcome.FAILED)

    def end(self, item: Item, outcome: Outcome) -> None:
        assert self.scheduler.settle(item, outcome)
        self.ended[item] += 1
        assert (item.outcome, item.stage) == (outcome, Stage.ENDED)
        assert not self.scheduler.settle(item, Outcome.FAILED)
        assert item.outcome is outcome

    def finish(self, batch: list[Item]) -> None:
        for item in batch:
            if item.outcome is None:
                self.end(item, Outcome.DONE)
            else:
                assert not self.scheduler.settle(item, Outcome.DONE)

    # -- A batch, and why it is what it is ----------------------------------------------------------------------------

    def lead(self, waiting: list[Item]) -> Item:
        """The item to run next but for the share of bulk: earliest deadline first, of those whose client's turn it is."""
        firsts = [self.next_of(bulk, waiting) for bulk in (False, True)]
        single, bulk = firsts
        if single is None or bulk is None:
            item = single or bulk
            assert item is not None
            return item
        return single if single.client != bulk.client else min(single, bulk, key=order)

    def next_of(self, bulk: bool, waiting: list[Item]) -> Item | None:
        """Of one class: the earliest deadline of the client that has had the fewest turns while it waited."""
        own = [item for item in waiting if item.bulk is bulk]
        if not own:
            return None
        turn = min(self.turns[(bulk, item.client)] for item in own)
        candidates = [item for item in own if self.turns[(bulk, item.client)] == turn]
        return min(candidates, key=order)

    def take(self, waiting: list[Item]) -> None:
        idle_lanes = self.lanes - len(self.runs)
        batch, expired = self.scheduler.take(self.now_s, idle_lanes)
        assert set(expired) == {item for item in waiting if item.deadline_s <= self.now_s}
        assert all(item.outcome is Outcome.EXPIRED for item in expired)
        self.ended.update(expired)
        live = [item for item in waiting if item.deadline_s > self.now_s]
        most = min(self.cost.cap, math.ceil(len(live) / idle_lanes))
        assert bool(batch) is bool(live)  # never idle while work waits
        assert len(batch) <= most  # never over the cap, nor over the share of an idle lane
        if not batch:
            return
        assert all(item.stage is Stage.RUNNING for item in batch)
        others = [*self.at(Stage.DECODING), *self.at(Stage.WAITING), *self.runs]
        assert self.scheduler.alone is (len(batch) == 1 and not others)  # an item has all cores only if there is no other
        self.runs.append(batch)
        self.check_order(batch, live)
        self.check_size(batch, live, most)

    def check_order(self, batch: list[Item], live: list[Item]) -> None:
        lead = self.lead(live)
        if len(batch) > 1 and self.cost.duration_s(1) <= lead.deadline_s - self.now_s:
            assert batch[0] is lead  # where there is more than one place, the most urgent item has the first, if that helps
        left = list(live)
        for item in batch:
            bulk_waits = any(other.bulk for other in left)
            first = self.next_of(item.bulk, left)
            assert first is not None
            own = [other for other in left if (other.bulk, other.client) == (item.bulk, item.client)]
            assert item is own[0]  # of one client the earliest deadline, and of clients one of those whose turn it is
            turn = (item.bulk, item.client)
            assert self.turns[turn] == self.turns[(item.bulk, first.client)]
            assert item.deadline_s == first.deadline_s
            if item is not self.lead(left) and self.lead(left).bulk is not item.bulk:  # only its share lets bulk overtake
                assert item.bulk
                assert self.places_without_bulk >= BULK_EVERY - 2
            left.remove(item)
            self.clocks[item.bulk] = max(self.clocks[item.bulk], self.turns[turn])
            self.turns[turn] += 1
            bulk_left = bulk_waits and not item.bulk
            self.places_without_bulk = self.places_without_bulk + 1 if bulk_left else 0
            assert self.places_without_bulk < BULK_EVERY  # bulk that waits has one in so many places

    def in_time(self, item: Item, n_items: int) -> bool:
        """Whether the item is read by its deadline in a batch of that size; true also when it is too late anyway."""
        slack_s = item.deadline_s - self.now_s
        return self.cost.duration_s(n_items) <= slack_s or self.cost.duration_s(1) > slack_s

    def check_size(self, batch: list[Item], live: list[Item], most: int) -> None:
        size = len(batch)
        assert all(self.in_time(item, size) for item in batch)
        n_singles = sum(not item.bulk for item in batch)
        left = [item for item in live if item not in batch]
        if size < most and left:  # as large as can be: whoever comes next would make someone late, or the run too long
            unwelcome = self.lead(left).bulk and not self.bulk_may_join(size + 1, n_singles, tolerance=-ROUNDING)
            firsts = [self.next_of(bulk, left) or left[0] for bulk in (False, True)]
            lead = batch[0]
            late = any(not self.in_time(item, size + 1) for item in [*batch, lead, *firsts])
            assert unwelcome or late
        n_due = 1  # at most one of so few places is bulk's whatever comes of it
        if sum(item.bulk for item in batch[1:]) > n_due and batch[-1].bulk:
            assert self.bulk_may_join(size, n_singles, tolerance=ROUNDING)

    def bulk_may_join(self, n_items: int, n_singles: int, tolerance: float) -> bool:
        if self.now_s - self.single_seen_s > BULK_YIELDS_S:
            return True
        longest_s = BULK_STRETCH * self.cost.duration_s(max(1, n_singles))
        return self.cost.duration_s(n_items) <= longest_s * (1 + tolerance)

    # -- What always holds --------------------------------------------------------------------------------------------

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        decoding, waiting = self.at(Stage.DECODING), self.at(Stage.WAITING)
        running = sum(len(batch) for batch in self.runs)
        assert self.scheduler.decoding == len(decoding)
        assert self.scheduler.waiting == len(waiting)
        assert self.scheduler.in_flight == len(decoding) + len(waiting) + running
        crops = [item for item in decoding + waiting if not item.is_follower]
        assert len(crops) <= (CAPACITY if self.clients == [None] else 1.5 * CAPACITY)
        assert all(  # further reads have the deadline, class and client of their crop, and so its turn
            (item.deadline_s, item.bulk, item.client) == (leader.deadline_s, leader.bulk, leader.client)
            for leader in self.admitted
            for item in leader.followers
        )
        oldest_s = min((item.enqueued_s for item in waiting), default=self.now_s)
        assert self.scheduler.oldest_age_s(self.now_s) == self.now_s - oldest_s
        outcomes = Counter(item.outcome for item in self.admitted)
        assert len(self.admitted) == sum(outcomes[outcome] for outcome in Outcome) + outcomes[None]
        assert outcomes[None] == len(decoding) + len(waiting) + len(self.at(Stage.RUNNING))
        assert all(count == 1 for count in self.ended.values())
        assert sum(self.ended.values()) == len(self.admitted) - outcomes[None]
        for line in self.scheduler._queue._classes.values():
            assert len(line.heap) <= 2 * line.n_waiting + MIN_DEAD
        held = Counter(item.client for item in decoding + waiting)
        assert {client: self.scheduler._queue.held_by(client) for client in held} == held
        assert self.scheduler._queue.n_holders == len(held)

    def teardown(self) -> None:
        """Whatever happened, everything ends when decoding and the lanes go on."""
        if not hasattr(self, "scheduler"):
            return
        for item in self.at(Stage.DECODING):
            self.decode(item)
        for _ in range(len(self.admitted) + 2):
            if self.runs:
                batch = self.runs.pop()
                self.scheduler.ran(len(batch), 0.01)
                self.finish(batch)
            if waiting := sorted(self.at(Stage.WAITING), key=order):
                self.take(waiting)
        assert all(self.ended[item] == 1 for item in self.admitted)
        assert self.scheduler.in_flight == 0
        assert self.scheduler.predict(1, bulk=False).start_s == 0


TestScheduler = SchedulerMachine.TestCase
