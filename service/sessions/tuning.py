"""The sweep at warm-up: which lanes, threads and batch cap this model runs best with, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from math import ceil
from statistics import quantiles
from typing import Final

from service.engine.runs import run_checked
from service.engine.types import Session
from service.sessions.session import word_crops
from service.sessions.topology import Candidate, Sweep

SWEEP_S: Final = 1.0
"""About how long the sweep may take, without loading and first runs."""
ROUND_S: Final = 0.015
"""A timed round lasts about this long, or as long as a single run where that is longer."""
ROUNDS: Final = 2
PAIRS: Final = 9
MIN_RUN_S: Final = 1e-6
MAX_RUNS: Final = 64
MIN_TOLD_RUN_S: Final = 0.001
"""Of runs that compute for less than this it is not told whether they had a processor: their lanes wait for each other, in
Python."""

PAST_BEST: Final = 0.05
"""Larger batches are not tried once the rate of every candidate is this share below that at its best size."""
CHOICE_MARGIN: Final = 0.10
"""By how much another candidate must be faster than the most likely one to be chosen, as a share. A wrong choice from a noisy
sweep stays until the next start; and several threads a run look better in a sweep than in service, where they wait for each
other while HTTP has a core."""
ALONE_SHARE: Final = 0.8
"""A second session costs memory, so it must read a crop that is alone in this share of the usual time."""

Clock = Callable[[], float]


class _Contender:
    """A candidate's session, with a thread for each of its lanes."""

    def __init__(self, session: Session, candidate: Candidate, crop_shape: tuple[int, int], clock: Clock) -> None:
        self.session, self.candidate = session, candidate
        self.found = Sweep(candidate, {})
        self._crop_shape, self._clock = crop_shape, clock
        self._ran_s = self._computed_s = 0.0
        self._pool = ThreadPoolExecutor(candidate.lanes, thread_name_prefix="tuning")

    def __enter__(self) -> _Contender:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()

    def round_s(self, size: int, n_runs: int) -> float:
        """Mean seconds of a run of `size` crops, when every lane does `n_runs` of them."""
        crops = word_crops(*self._crop_shape, size)

        def run() -> tuple[float, float]:
            started_s, computed_s = time.monotonic(), time.thread_time()
            for _ in range(n_runs):
                run_checked(self.session, crops)
            return time.monotonic() - started_s, time.thread_time() - computed_s

        started_s = self._clock()
        for lane in [self._pool.submit(run) for _ in range(self.candidate.lanes)]:
            ran_s, computed_s = lane.result()
            if computed_s >= n_runs * MIN_TOLD_RUN_S:
                self._ran_s += ran_s
                self._computed_s += computed_s
        return (self._clock() - started_s) / n_runs

    def swept(self) -> Sweep:
        """What was found."""
        known = self.candidate.intra_op_threads == 1 and self._ran_s > 0
        return replace(self.found, cpu_share=self._computed_s / self._ran_s if known else None)

    def keep(self, size: int, duration_s: float) -> None:
        """Keep the duration of a run if it is the shortest yet."""
        durations_s = self.found.durations_s
        durations_s[size] = min(duration_s, durations_s.get(size, duration_s))


def sweep(
    sessions: Sequence[tuple[Candidate, Session]],
    crop_shape: tuple[int, int],
    sizes: Sequence[int],
    limit_s: float = SWEEP_S,
    clock: Clock = time.monotonic,
) -> list[Sweep]:
    """Run batches from all lanes of each candidate at once, larger and larger, while that pays and there is time.

    The candidates are measured in turn, size by size and in short rounds: a slow moment of the machine hits all of them.

    Args:
        sessions: Candidates, each with a session opened for it.
        crop_shape: Height and width.
        sizes: Batch sizes to try, ascending.
        limit_s: No further size is begun after half of this, and none is measured again after all of it.
        clock: Monotonic, seconds.

    Returns:
        What was found for each candidate, in their order.

    Raises:
        Exception: Whatever a session raises, or `InferenceError` when its answers have the wrong shape.
    """
    with ExitStack() as stack:
        contenders = [stack.enter_context(_Contender(session, candidate, crop_shape, clock)) for candidate, session in sessions]
        for contender in contenders:
            contender.round_s(sizes[0], 1)  # the very first run takes longer than any later one
        started_s = clock()
        for size in sizes:
            _measure_in_turn(contenders, size)
            if all(_is_past_best(contender.found) for contender in contenders) or clock() >= started_s + limit_s / 2:
                break
        for size in list(contenders[0].found.durations_s):  # once more, at another moment
            if clock() >= started_s + limit_s:
                break
            _measure_in_turn(contenders, size)
    return [contender.swept() for contender in contenders]


def _measure_in_turn(contenders: Sequence[_Contender], size: int) -> None:
    """Time each contender in turn and keep its quickest round: disturbances only ever make a round slower."""
    n_runs = [1] * len(contenders)
    for _ in range(1 + ROUNDS):
        for index, contender in enumerate(contenders):
            duration_s = contender.round_s(size, n_runs[index])
            contender.keep(size, duration_s)
            n_runs[index] = _runs_per_round(duration_s)


def _is_past_best(found: Sweep) -> bool:
    return found.crops_per_s(max(found.durations_s)) < (1 - PAST_BEST) * found.best_crops_per_s


def _runs_per_round(run_s: float) -> int:
    return min(MAX_RUNS, max(1, ceil(ROUND_S / max(run_s, MIN_RUN_S))))


def choose(sweeps: Sequence[Sweep]) -> Sweep:
    """The first candidate, which is the most likely one, unless another one has a clearly higher rate."""
    best = max(sweeps, key=lambda found: found.best_crops_per_s)
    return best if best.best_crops_per_s > (1 + CHOICE_MARGIN) * sweeps[0].best_crops_per_s else sweeps[0]


def pays_alone(wide: Session, usual: Session, crop_shape: tuple[int, int], clock: Clock = time.monotonic) -> bool:
    """Whether a session with all cores reads a single crop so much sooner that it is worth its memory.

    Args:
        wide: The session with all cores.
        usual: The session of the lanes.
        crop_shape: Height and width.
        clock: Monotonic, seconds.
    """
    one_lane = Candidate(1, 1)
    with _Contender(wide, one_lane, crop_shape, clock) as first, _Contender(usual, one_lane, crop_shape, clock) as second:
        n_runs = [_runs_per_round(contender.round_s(1, 1)) for contender in (first, second)]
        # Runs that follow each other are compared, since they met the same load. Other work on the machine hinders most the run
        # that needs all cores, so the better quarter of the pairs decides.
        shares = [first.round_s(1, n_runs[0]) / max(second.round_s(1, n_runs[1]), MIN_RUN_S) for _ in range(PAIRS)]
    return quantiles(shares, n=4)[0] <= ALONE_SHARE
