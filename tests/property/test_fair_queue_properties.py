"""Turns of clients, for any course of events, beside a model that is plain lists."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.engine.fair_queue import MAX_DEBTORS, MIN_DEAD, FairQueue

CLIENTS = "abc"


@dataclass(eq=False)
class Thing:
    client: str
    urgency: float
    waits: bool = True


def line_of(*things: Thing) -> FairQueue[Thing]:
    line = FairQueue[Thing](lambda thing: thing.waits)
    for thing in things:
        line.push(thing.client, thing.urgency, thing)
    return line


def take(line: FairQueue[Thing], cost: float = 1.0) -> Thing:
    thing = line.first()
    assert thing is not None
    thing.waits = False
    line.take(thing.client, cost)
    return thing


events = st.one_of(
    st.tuples(st.just("push"), st.sampled_from(CLIENTS), st.integers(0, 9)),
    st.tuples(st.just("take"), st.sampled_from(CLIENTS), st.integers(0, 3)),
    st.tuples(st.just("leave"), st.sampled_from(CLIENTS), st.integers(0, 9)),
    st.tuples(st.just("charge"), st.sampled_from(CLIENTS), st.integers(0, 3)),
)


@given(st.lists(events, max_size=80))
def test_the_most_urgent_thing_of_the_client_whose_turn_is_next(course: list[tuple[str, str, int]]) -> None:
    line, waiting = line_of(), list[Thing]()
    clock, turns = 0.0, dict.fromkeys(CLIENTS, 0.0)
    for event, client, number in course:
        own = [thing for thing in waiting if thing.client == client]
        if event == "push":
            if not own:
                turns[client] = max(turns[client], clock)
            waiting.append(thing := Thing(client, float(number)))
            line.push(client, thing.urgency, thing)
        elif event == "take" and waiting:
            thing = take(line, float(number))
            least = min(turns[other.client] for other in waiting)
            assert turns[thing.client] == least
            assert thing.urgency == min(other.urgency for other in waiting if turns[other.client] == least)
            assert thing is min((other for other in waiting if other.client == thing.client), key=lambda other: other.urgency)
            waiting.remove(thing)
            clock = max(clock, least)
            turns[thing.client] += number
        elif event == "leave" and own:
            thing = own[number % len(own)]
            thing.waits = False
            line.left(client)
            waiting.remove(thing)
        elif event == "charge":
            turns[client] = (turns[client] if own else max(turns[client], clock)) + number
            line.charge(client, float(number))
        assert bool(line) is bool(waiting)
        assert (line.first() is None) is not waiting
        for owner in line._owners.values():
            assert len(owner.heap) <= 2 * owner.n_waiting + MIN_DEAD


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_nobody_has_more_turns_than_others_while_they_wait(numbers: list[int]) -> None:
    line = line_of(*(Thing(str(client), 0.0) for client, number in enumerate(numbers) for _ in range(number)))
    had: Counter[str] = Counter()
    for _ in range(sum(numbers)):
        had[take(line).client] += 1
        left = [had[str(client)] for client, number in enumerate(numbers) if had[str(client)] < number]
        assert not left or max(had.values()) - min(left) <= 1


@given(st.lists(st.sampled_from([1.0, 5.0, 250.0]), min_size=2, max_size=4), st.integers(50, 300))
def test_clients_share_what_is_used_and_not_the_turns(costs: list[float], n_turns: int) -> None:
    """No client has had more than another one that waits, but for one turn."""
    line = line_of(*(Thing(str(client), 0.0) for client in range(len(costs)) for _ in range(n_turns)))
    used = dict.fromkeys(map(str, range(len(costs))), 0.0)
    for _ in range(n_turns):
        thing = take(line, 0.0)
        line.charge(thing.client, costs[int(thing.client)])  # known only when it is over
        used[thing.client] += costs[int(thing.client)]
        assert max(used.values()) - min(used.values()) <= max(costs)


def test_who_comes_late_starts_with_the_others_and_who_leaves_takes_its_debt_along() -> None:
    line = line_of(*(Thing("a", 0.0) for _ in range(100)))
    for _ in range(50):
        take(line)
    for _ in range(2):
        line.push("b", 9.0, Thing("b", 9.0))
    assert [take(line).client for _ in range(4)] == ["b", "a", "b", "a"]  # not 50 times "b"
    line.push("b", 9.0, Thing("b", 9.0))
    take(line)
    line.charge("b", 10.0)
    line.push("b", 9.0, Thing("b", 9.0))
    assert [take(line).client for _ in range(10)] == ["a"] * 10


def test_many_clients_leave_nothing_behind() -> None:
    line = line_of(Thing("stays", 0.0))
    for client in range(2 * MAX_DEBTORS):
        line.push(client, -1.0, thing := Thing(str(client), -1.0))
        thing.waits = False
        line.take(client, 1.0)
    assert len(line._owners) == 1
    assert len(line._debts) <= MAX_DEBTORS


def test_what_waits_no_more_is_forgotten_at_once() -> None:
    gc.disable()
    try:
        line, thing = line_of(), Thing("a", 0.0)
        line.push("a", 0.0, thing)
        alive = weakref.ref(thing)
        take(line)
        del thing
        assert alive() is None
    finally:
        gc.enable()
