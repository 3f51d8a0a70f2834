from __future__ import annotations

import pytest

from service.http.bodies.media_types import media_type_of
from service.http.connection import body_budget
from service.http.connection.body_budget import SMALL_BODY_BYTES, BodyBudget, Holding, bodies_bytes, copies_of
from tests.fakes import toy_settings

ROOM = 2**20
PART = ROOM // 4


class Budget:
    """A budget, and who was refused."""

    def __init__(self) -> None:
        self.budget = BodyBudget(ROOM)
        self.refused: list[str] = []

    def body(self, name: str, client: str = "a", copies: int = 1) -> Holding:
        return Holding(client, lambda: self.refused.append(name), copies)


def test_bodies_take_what_there_is_and_give_it_back() -> None:
    there = Budget()
    for _ in range(3):
        bodies = [there.body(str(number)) for number in range(4)]
        assert all(there.budget.take(body, PART) for body in bodies)
        assert there.budget.held_bytes == ROOM
        for body in bodies:
            there.budget.release(body)
            there.budget.release(body)
        assert there.budget.held_bytes == 0
    assert there.refused == []


def test_the_client_with_the_most_is_told_for_its_largest_body() -> None:
    there = Budget()
    for name, client, parts in (("large", "a", 2), ("small", "a", 1), ("other", "b", 1)):
        assert there.budget.take(there.body(name, client), parts * PART)
    assert there.budget.take(there.body("new", "c"), PART)
    assert there.refused == ["large"]
    assert there.budget.take(there.body("newer", "d"), PART)
    assert there.refused == ["large"]


def test_who_asks_is_told_when_it_has_the_most() -> None:
    there = Budget()
    assert there.budget.take(there.body("other", "b"), PART)
    greedy = there.body("greedy")
    assert there.budget.take(greedy, 3 * PART)
    assert not there.budget.take(greedy, PART)
    assert there.refused == ["greedy"]
    assert there.budget.held_bytes == PART


def test_what_was_let_in_is_not_given_up_and_small_bodies_find_room_beside_it() -> None:
    there = Budget()
    full = there.body("full")
    assert there.budget.take(full, ROOM)
    full.arriving = False
    assert not there.budget.take(there.body("large", "b"), PART)
    assert there.budget.take(there.body("small", "b"), SMALL_BODY_BYTES)
    assert there.refused == ["large"]
    assert there.budget.held_bytes <= ROOM + ROOM // 8


def test_a_small_body_displaces_a_large_one_of_the_same_client() -> None:
    there = Budget()
    assert there.budget.take(there.body("large"), ROOM)
    for number in range(3):
        assert there.budget.take(there.body(f"small {number}"), SMALL_BODY_BYTES)
    assert there.refused == ["large"]


@pytest.mark.parametrize(
    ("content_type", "copies"),
    [(b"image/png", 1), (b"multipart/form-data; boundary=x", 2), (b"Application/JSON", 2), (None, 1)],
)
def test_forms_and_json_count_twice(content_type: bytes | None, copies: int) -> None:
    assert copies_of(media_type_of(content_type or b"")) == copies
    there = Budget()
    body = there.body("x", copies=copies)
    there.budget.take(body, 10)
    assert there.budget.held_bytes == 10 * copies


@pytest.mark.parametrize(
    ("limit_bytes", "settings", "expected"),
    [
        (768 * 2**20, {}, 256 * 2**20),
        (2**20, {"max_body_bytes": 1000}, 2**20 // 3),
        (2**20, {"max_body_bytes": 2**20}, 2**21),
        (2**20, {"max_bodies_bytes": 12345}, 12345),
    ],
)
def test_the_room_follows_from_the_memory(
    monkeypatch: pytest.MonkeyPatch, limit_bytes: int, settings: dict[str, int], expected: int
) -> None:
    monkeypatch.setattr(body_budget, "memory_limit_bytes", lambda: limit_bytes)
    assert bodies_bytes(toy_settings(**settings)) == expected
