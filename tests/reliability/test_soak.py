from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability.clients import Record, read_answer
from tests.reliability.memory import MIB, slope_of
from tests.reliability.soak import Outcome, soak, table

SECONDS, CAPACITY_SECONDS = 8.0, 1.5
MAX_RISE_MIB = 12
"""A crop kept for each request would be more."""


@pytest.mark.serial
@pytest.mark.usefixtures("both_forms")
def test_a_short_soak_loses_doubles_and_keeps_nothing(tmp_path: Path) -> None:
    outcome = soak("toy", SECONDS, CAPACITY_SECONDS, tmp_path)
    assert outcome.complaints() == [], table("toy", outcome)
    assert outcome.slope.rise_mib < MAX_RISE_MIB, table("toy", outcome)
    # It was one: everything that can go wrong did.
    record = outcome.record
    assert record.left > 0
    assert outcome.errors_logged > 0
    assert all(outcome.crops[name] > 0 for name in ("done", "failed", "cancelled")), outcome.crops
    assert {200, 400, 422, 500} <= record.statuses.keys(), record.statuses


GOOD = Outcome(10.0, Record(sent=3, left=1), [(0.0, MIB), (1.0, MIB)], {}, 0.0, 2.0, 1)


def test_its_complaints() -> None:
    def complaints(**changes: object) -> list[str]:
        record = Record(sent=3, left=1)
        record.statuses[200] = 2
        for name in Record.__slots__:
            if name in changes:
                setattr(record, name, changes.pop(name))
        return replace(GOOD, record=record, **changes).complaints()  # type: ignore[arg-type]

    assert complaints() == []
    assert complaints(wrong=1) == ["answers wrong: 1"]
    assert complaints(doubled=2) == ["answers doubled: 2"]
    assert "answers lost: 1" in complaints(lost=1)
    assert complaints(unsettled=1.0) == ["crops admitted and without an outcome: 1"]
    assert complaints(sent=4, left=1) == ["requests with neither an answer nor a client that left: 1"]
    assert len(complaints(answered_by_server=1.0)) == len(complaints(answered_by_server=4.0)) == 1


def test_the_slope_of_memory() -> None:
    flat = slope_of([(second, 5 * MIB + second % 2) for second in range(100)])
    assert flat.mib_per_hour == pytest.approx(0, abs=0.01)
    leak = slope_of([(float(second), 5 * MIB + second * MIB) for second in range(100)])
    assert leak.mib_per_hour == pytest.approx(3600)
    assert leak.error_mib_per_hour == pytest.approx(0, abs=1e-6)
    assert leak.rise_mib == pytest.approx(99)


def test_an_answer_that_ends_too_early_is_a_lost_one() -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\nX-Request-Id: a\r\nContent-Length: 5\r\n\r\nhell")
        reader.feed_eof()
        with pytest.raises(EOFError):
            await read_answer(reader)

    asyncio.run(scenario())
