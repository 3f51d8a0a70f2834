"""Rules of the cost model, for any measurements."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import KNEE_SLACK, MAX_DEVIATION, PACE_WEIGHT, SHAPE_WEIGHT, CostModel

SIZES = (1, 2, 4, 8, 16, 32)
MAX_BATCH = 32
durations = st.floats(1e-5, 10.0)
tables = st.dictionaries(st.sampled_from(SIZES), durations, min_size=1)
runs = st.lists(st.tuples(st.integers(1, MAX_BATCH), durations), max_size=60)


def model_of(table: dict[int, float]) -> CostModel:
    model = CostModel(MAX_BATCH)
    model.seed(table)
    return model


def curve(model: CostModel) -> list[float]:
    return [model.duration_s(size) for size in range(1, MAX_BATCH + 1)]


@given(tables, runs)
def test_a_larger_batch_never_takes_less_time(table: dict[int, float], observed: list[tuple[int, float]]) -> None:
    model = model_of(table)
    for n_items, duration_s in observed:
        model.observe(n_items, duration_s)
    values = curve(model)
    assert all(0 < smaller <= larger * (1 + 1e-9) for smaller, larger in pairwise(values))


@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.sets(st.sampled_from(SIZES), min_size=2))
def test_interpolates_what_was_measured(base_s: float, per_item_s: float, sizes: set[int]) -> None:
    model = model_of({size: base_s + per_item_s * size for size in sizes})
    for size in range(min(sizes), max(sizes) + 1):
        assert abs(model.duration_s(size) / (base_s + per_item_s * size) - 1) < 1e-9


@given(tables, st.integers(1, MAX_BATCH), st.floats(0.0, 1000.0))
def test_one_hiccup_changes_little(table: dict[int, float], n_items: int, duration_s: float) -> None:
    model = model_of(table)
    before = curve(model)
    model.observe(n_items, duration_s)
    most = (1 + PACE_WEIGHT * (MAX_DEVIATION - 1)) * (1 + SHAPE_WEIGHT * (MAX_DEVIATION - 1))
    assert all(1 / most <= now / then <= most * (1 + 1e-9) for then, now in zip(before, curve(model), strict=True))


@given(tables, st.integers(1, MAX_BATCH), durations)
def test_learns_what_runs_of_one_size_take(table: dict[int, float], n_items: int, truth_s: float) -> None:
    model = model_of(table)
    for _ in range(600):
        model.observe(n_items, truth_s)
    assert abs(model.duration_s(n_items) / truth_s - 1) < 0.02


@given(
    st.lists(durations, min_size=len(SIZES), max_size=len(SIZES)),
    st.floats(1e-3, 0.1),
    st.floats(1e-3, 0.1),
    st.sets(st.sampled_from(SIZES), min_size=2),
)
def test_learns_the_shape_of_the_curve(seeds_s: list[float], base_s: float, per_item_s: float, sizes: set[int]) -> None:
    model = model_of(dict(zip(SIZES, seeds_s, strict=True)))
    for _ in range(600):
        for size in sizes:
            model.observe(size, base_s + per_item_s * size)
    assert all(abs(model.duration_s(size) / (base_s + per_item_s * size) - 1) < 0.05 for size in sizes)


@given(tables, runs, st.floats(0.0, 20.0), st.integers(1, MAX_BATCH))
def test_the_largest_batch_in_time(
    table: dict[int, float], observed: list[tuple[int, float]], limit_s: float, max_items: int
) -> None:
    model = model_of(table)
    for n_items, duration_s in observed:
        model.observe(n_items, duration_s)
    largest = model.largest_within(limit_s, max_items)
    assert 0 <= largest <= max_items
    assert largest == 0 or model.duration_s(largest) <= limit_s
    assert largest == max_items or model.duration_s(largest + 1) > limit_s


@given(tables, st.integers(1, MAX_BATCH))
def test_the_cap_is_the_smallest_size_about_as_good_as_any(table: dict[int, float], max_batch_size: int) -> None:
    model = CostModel(max_batch_size)
    model.seed(table)
    per_item_s = [model.duration_s(size) / size for size in range(1, max_batch_size + 1)]
    good_s = (1 + KNEE_SLACK) * min(per_item_s)
    assert 1 <= model.cap <= max_batch_size
    assert per_item_s[model.cap - 1] <= good_s * (1 + 1e-9)
    assert all(value > good_s * (1 - 1e-9) for value in per_item_s[: model.cap - 1])


@given(tables, runs)
def test_the_cap_stays_what_the_warm_up_found(table: dict[int, float], observed: list[tuple[int, float]]) -> None:
    model = model_of(table)
    cap = model.cap
    for n_items, duration_s in observed:
        model.observe(n_items, duration_s)
    assert model.cap == cap


def test_a_cap_that_was_set_is_not_moved_to_the_knee() -> None:
    cost = CostModel(8, capped_at_knee=False)
    cost.seed({size: float(size) for size in (1, 2, 4, 8)})
    assert cost.cap == 8
