"""The engine with its threads: whatever becomes of its items, each is settled exactly once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import CostModel
from service.engine.engine import Engine
from service.engine.scheduler import EngineLimits
from service.engine.types import Outcome
from tests.fakes import PATIENCE_S, FakeSession, Mailbox, Tally, new_item
from tests.toy_artifact import pixels_of


@given(
    fates=st.lists(st.sampled_from(["good", "poisoned", "expired", "cancelled", "undecodable"]), max_size=40),
    lanes=st.integers(1, 3),
    max_batch_size=st.integers(1, 5),
    alone=st.sampled_from([None, FakeSession()]),
)
def test_every_admitted_item_is_settled_exactly_once(
    fates: list[str], lanes: int, max_batch_size: int, alone: FakeSession | None
) -> None:
    mailbox, tally = Mailbox(), Tally()
    limits = EngineLimits(lanes, max_queue_items=64)
    engine = Engine(FakeSession(), CostModel(max_batch_size), limits, deliver=mailbox.deliver, observer=tally, alone=alone)
    engine.start()
    items = [new_item(0.0 if fate == "expired" else 1e12) for fate in fates]
    if items:
        engine.admit(items)
    for index, (item, fate) in enumerate(zip(items, fates, strict=True)):
        if fate == "undecodable":
            engine.fail(item, ValueError("not an image"))
        else:
            engine.submit(item, pixels_of(str(index), poisoned=fate == "poisoned"))
        if fate == "cancelled":
            engine.abandon([item], Outcome.CANCELLED)
    assert engine.stop(PATIENCE_S)

    wanted = {"good": "done", "poisoned": "failed", "undecodable": "failed", "expired": "expired"}
    for index, (item, fate) in enumerate(zip(items, fates, strict=True)):
        if fate == "cancelled":  # it may have been run before it was cancelled
            assert item.outcome in (Outcome.CANCELLED, Outcome.DONE)
        else:
            assert item.outcome == wanted[fate]
        if item.outcome is Outcome.DONE:
            assert item.token_ids is not None
            assert [int(value) - 1 for value in item.token_ids if value] == [int(char) for char in str(index)]
    assert all(size <= max_batch_size for size in tally.batches)
    assert tally.counts["admitted"] == sum(tally.counts[str(outcome)] for outcome in Outcome)
    assert len(mailbox.items) == len(items) - tally.counts["cancelled"]
