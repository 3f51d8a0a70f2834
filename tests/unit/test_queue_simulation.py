"""What the queue is for, played through on a simulated clock with the service's own scheduler: the same course every time."""

from __future__ import annotations

import pytest

from benchmarks.queue_simulation import (
    BUDGETS,
    MACHINES,
    POLICIES,
    Machine,
    compare_mixed,
    compare_windows,
    overload,
    singles_alone,
    singles_beside_bulk,
)

N_SINGLES = 600
machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())


@machines
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_late_binding_is_sooner_than_a_fixed_window(machine: Machine, load: float) -> None:
    late, window = (singles_alone(machine, POLICIES[name], load, N_SINGLES).singles for name in ("late", "window 10 ms"))
    assert late.refused == window.refused == 0
    assert late.percentile_s(50) < window.percentile_s(50)
    assert late.percentile_s(99) < window.percentile_s(99)


@machines
def test_single_crops_are_not_held_up_by_bulk(machine: Machine) -> None:
    run = singles_beside_bulk(machine, POLICIES["late"], N_SINGLES)
    assert run.singles.refused == run.bulk.refused == 0
    assert run.singles.percentile_s(99) <= 5 * machine.cost().duration_s(1)
    assert run.bulk.latencies_s


@machines
def test_an_overload_is_shed_and_over_at_once(machine: Machine) -> None:
    result = overload(machine, POLICIES["late"])
    assert result.simulation.singles.percentile_s(99) <= BUDGETS.single_s
    assert result.goodput >= 0.9
    assert result.recovery_s <= 1.0


def test_the_comparisons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    compare_windows(50)
    compare_mixed(50)
    printed = capsys.readouterr().out
    for name in (*MACHINES, "late", "window 10 ms", "whole", "fifo"):
        assert name in printed
