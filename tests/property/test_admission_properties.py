"""Rules of admission, for any load."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from service.engine.admission import PESSIMISM, Load, late_by_s, predict
from service.engine.cost import CostModel
from service.engine.queue import BULK_EVERY

MAX_BATCH = 16
decode_waits = st.floats(0, 10)


@st.composite
def costs(draw: st.DrawFn) -> CostModel:
    model = CostModel(MAX_BATCH)
    base_s, per_item_s = draw(st.floats(0, 0.1)), draw(st.floats(1e-4, 0.1))
    model.seed({size: base_s + per_item_s * size for size in (1, 2, 4, 8, 16)})
    return model


@st.composite
def loads(draw: st.DrawFn) -> Load:
    singles, bulk = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    busy_lanes = draw(st.integers(0, 4))
    running = draw(st.integers(busy_lanes, busy_lanes * MAX_BATCH))
    return Load(singles, bulk, running, busy_lanes, draw(decode_waits), draw(st.integers(0, 300)))


lane_counts = st.integers(1, 4)
requests = st.integers(1, 128)


@given(loads(), costs(), lane_counts, requests, st.booleans(), st.data())
def test_more_ahead_never_means_sooner(
    load: Load, cost: CostModel, lanes: int, n_items: int, bulk: bool, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(["singles", "bulk", "running", "busy_lanes", "decode_s", "between"]))
    more = replace(load, **{field: getattr(load, field) + data.draw(st.integers(1, 50))})
    now, then = (predict(each, n_items, bulk, cost, lanes) for each in (load, more))
    assert now.start_s <= then.start_s
    assert now.first_s <= then.first_s
    assert now.last_s <= then.last_s
    assert late_by_s(now, 0.5, 1.0) <= late_by_s(then, 0.5, 1.0)


@given(costs(), lane_counts, requests, st.booleans(), decode_waits, st.integers(0, 3), st.integers(0, 3))
def test_never_refuses_while_a_lane_is_free(
    cost: CostModel, lanes: int, n_items: int, bulk: bool, decode_s: float, ahead: int, busy_lanes: int
) -> None:
    assume(ahead + busy_lanes < lanes)
    load = Load(singles=ahead, bulk=0, running=busy_lanes * MAX_BATCH, busy_lanes=busy_lanes, decode_s=decode_s)
    prediction = predict(load, n_items, bulk, cost, lanes)
    assert prediction.start_s == 0.0
    assert late_by_s(prediction, budget_s=1e-9, deadline_s=1e-9) == 0


@given(loads(), costs(), lane_counts)
def test_a_single_crop_waits_no_longer_than_bulk_and_bulk_for_everything(load: Load, cost: CostModel, lanes: int) -> None:
    single, bulk = (predict(load, 1, kind, cost, lanes) for kind in (False, True))
    assert single.first_s <= bulk.first_s
    waiting = load.singles + load.bulk
    if waiting + load.busy_lanes >= lanes:
        assert bulk.start_s >= (waiting + load.running) / cost.cap * cost.duration_s(cost.cap) / lanes * (1 - 1e-9)


@given(loads(), costs(), lane_counts, st.integers(0, 10_000))
def test_bulk_costs_a_single_crop_no_more_than_its_share(load: Load, cost: CostModel, lanes: int, bulk: int) -> None:
    alone, beside = (predict(replace(load, bulk=n, decode_s=0.0), 1, False, cost, lanes) for n in (0, bulk))
    assert beside.start_s <= alone.start_s * BULK_EVERY / (BULK_EVERY - 1) * (1 + 1e-9)


@given(loads(), costs(), lane_counts, requests, st.booleans(), st.floats(1e-3, 10), st.floats(1e-3, 10))
def test_whoever_must_wait_is_let_in_exactly_when_in_time(
    load: Load, cost: CostModel, lanes: int, n_items: int, bulk: bool, budget_s: float, deadline_s: float
) -> None:
    prediction = predict(load, n_items, bulk, cost, lanes)
    assume(prediction.start_s > 0)
    in_time = PESSIMISM * prediction.first_s <= budget_s and PESSIMISM * prediction.last_s <= deadline_s
    assert (late_by_s(prediction, budget_s, deadline_s) == 0) is in_time
