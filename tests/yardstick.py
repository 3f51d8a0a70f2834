"""CPU time in a unit that slow and busy machines keep: how long a fixed piece of work takes there and then."""

from __future__ import annotations

import functools
import time

UNITS_FOR_HOSTILE_INPUT = 100
"""What one hostile file or body may take; unbounded they take five times that and more."""
_STEPS = 400_000


def costs_little(since_s: float) -> bool:
    """Whether this process took no more CPU time, since its clock stood there, than one hostile file or body may take."""
    spent_s = time.process_time() - since_s
    # The unit is measured again only if it matters: the machine may be slower by now.
    return any(spent_s < UNITS_FOR_HOSTILE_INPUT * unit() for unit in (_first_unit_s, _unit_s))


def _unit_s() -> float:
    """CPU seconds of the piece of work, about 0.02."""
    return min(_work_s() for _ in range(3))


@functools.cache
def _first_unit_s() -> float:
    return _unit_s()


def _work_s() -> float:
    started_s, total = time.process_time(), 0
    for number in range(_STEPS):
        total += number % 7
    return time.process_time() - started_s
