"""Who gives way when there are more connections than there may be."""

from __future__ import annotations

import pytest

from service.http.connection.limit import SLOW_BODY_S, SLOW_HEAD_S, Activity, ConnectionLimit
from tests.fakes import FakeClock

MOST = 6


class Line:
    """A connection that remembers what became of it."""

    def __init__(self) -> None:
        self.gave_way = self.dropped = False

    def give_way(self) -> None:
        self.gave_way = True

    def drop(self) -> None:
        self.dropped = True


class Room:
    """A limit, and connections in it."""

    def __init__(self, max_surplus: int = 2) -> None:
        self.clock = FakeClock()
        self.limit = ConnectionLimit(MOST, max_surplus, self.clock)

    def enter(self, client: str | None, n: int = 1, stage: Activity = Activity.IDLE) -> list[Line]:
        lines = [Line() for _ in range(n)]
        for line in lines:
            assert self.limit.enter(line, client)
            self.limit.change(line, stage)
        return lines


@pytest.mark.parametrize("stage", [Activity.IDLE, Activity.UNREAD, Activity.HEAD, Activity.BODY])
def test_who_holds_far_more_makes_room_with_whatever_is_not_complete(stage: Activity) -> None:
    room = Room()
    greedy = room.enter("a", MOST, stage)
    room.enter("b", 2)
    assert [line.gave_way for line in greedy] == [True, True, False, False, False, False]


def test_what_is_being_answered_stays() -> None:
    room = Room()
    greedy = room.enter("a", MOST, Activity.BUSY)
    assert not room.limit.enter(Line(), "b")
    assert not any(line.gave_way for line in greedy)


def test_idle_ones_go_before_those_that_ask() -> None:
    room = Room()
    [body] = room.enter("a", 1, Activity.BODY)
    [head] = room.enter("a", 1, Activity.HEAD)
    [unread] = room.enter("a", 1, Activity.UNREAD)
    [idle, _] = room.enter("a", 2)
    room.enter("b", 1)
    room.enter("b", 1)
    assert idle.gave_way
    assert not unread.gave_way
    assert not head.gave_way
    assert not body.gave_way


@pytest.mark.parametrize("stage", [Activity.HEAD, Activity.BODY])
def test_nobody_is_turned_out_for_one_who_holds_more(stage: Activity) -> None:
    room = Room()
    modest = room.enter("b", 1, Activity.IDLE) + room.enter("c", 1, stage)
    room.enter("a", MOST - 2, stage)
    for _ in range(3):
        assert not room.limit.enter(Line(), "a")
    assert not any(line.gave_way for line in modest)


def test_who_holds_more_may_still_replace_its_own() -> None:
    room = Room()
    modest, [old, *_] = room.enter("b", 1), room.enter("a", MOST - 1)
    room.enter("a", 1)
    assert old.gave_way
    assert not modest[0].gave_way


@pytest.mark.parametrize(("stage", "slow_s"), [(Activity.HEAD, SLOW_HEAD_S), (Activity.BODY, SLOW_BODY_S)])
def test_a_slow_request_gives_way_even_to_the_same_client(stage: Activity, slow_s: float) -> None:
    room = Room()
    slow = room.enter("a", MOST, stage)
    assert not room.limit.enter(Line(), "a")
    room.clock.advance(slow_s)
    room.enter("a", 1, stage)
    assert [line.gave_way for line in slow] == [True, False, False, False, False, False]


@pytest.mark.parametrize("stage", [Activity.HEAD, Activity.BODY])
def test_a_request_is_as_old_as_itself_and_not_as_its_connection(stage: Activity) -> None:
    room = Room()
    lines = room.enter("a", MOST)
    room.clock.advance(2 * SLOW_BODY_S)
    for line in lines:
        room.limit.change(line, stage)
    assert not room.limit.enter(Line(), "a")


@pytest.mark.parametrize("stage", [Activity.HEAD, Activity.BODY])
def test_what_has_begun_is_not_taken_from_who_holds_but_a_little_more(stage: Activity) -> None:
    room = Room()
    room.enter("b", 2, Activity.BUSY)
    begun = room.enter("a", 4, stage)
    assert not room.limit.enter(Line(), "b")
    assert not any(line.gave_way for line in begun)
    room.limit.change(begun[0], Activity.IDLE)  # while what is idle is
    room.enter("b", 1)
    assert begun[0].gave_way


def test_clients_of_a_trusted_proxy_are_held_to_no_share() -> None:
    room = Room()
    gateway = room.enter(None, MOST - 1, Activity.BODY)
    room.enter("a", 1, Activity.HEAD)
    assert not room.limit.enter(Line(), "b")
    assert not any(line.gave_way for line in gateway)


def test_a_trusted_proxy_gets_room_from_who_holds_much() -> None:
    room = Room()
    room.enter(None, 2, Activity.BODY)
    greedy = room.enter("a", MOST - 2, Activity.HEAD)
    room.enter(None, 1, Activity.BODY)
    assert greedy[0].gave_way


def test_surplus_is_bounded_and_never_becomes_more_than_there_is_room_for() -> None:
    room = Room(max_surplus=2)
    busy = room.enter("a", MOST, Activity.BUSY)
    surplus = [Line() for _ in range(5)]
    assert not any(room.limit.enter(line, "a") for line in surplus)
    assert [line.dropped for line in surplus] == [True, True, True, False, False]
    assert not room.limit.promote(surplus[3])
    room.limit.leave(busy[0])
    assert not room.limit.promote(surplus[4])  # the other one has been waiting for longer
    assert not room.limit.enter(Line(), "a")
    room = Room(max_surplus=2)
    busy, first = room.enter("a", MOST, Activity.BUSY), Line()
    assert not room.limit.enter(first, "a")
    room.limit.leave(busy[0])
    assert room.limit.promote(first)
    room.limit.change(first, Activity.BUSY)
    assert not room.limit.enter(Line(), "a")


def test_who_was_told_does_not_keep_the_room() -> None:
    room = Room()
    busy, told = room.enter("a", MOST, Activity.BUSY), Line()
    assert not room.limit.enter(told, "a")
    room.limit.told(told)
    room.limit.leave(busy[0])
    assert room.limit.enter(Line(), "a")
    room.limit.leave(told)


def test_room_comes_back() -> None:
    room = Room()
    for _ in range(3):
        lines = room.enter("a", MOST // 2) + room.enter("b", MOST // 2)
        for line in lines:
            room.limit.leave(line)
            room.limit.leave(line)
    assert not any(line.gave_way for line in room.enter("c", MOST))
