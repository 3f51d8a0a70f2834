"""The sweep at warm-up: which lanes, threads and batch cap this model runs best with, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import ceil
from typing import Final

from service.engine.batcher import run_checked
from service.engine.session import word_crops
from service.engine.topology import Candidate, Sweep
from service.engine.types import Session

SWEEP_S: Final = 1.3
"""About what the sweep may take, first runs and loading apart."""
ROUND_S: Final = 0.03
"""What is timed lasts about this long, and longer where a single run does."""
ROUNDS: Final = 2
MIN_ROUND_S: Final = 1e-6
MAX_RUNS: Final = 64

PAST_BEST: Final = 0.05
"""A candidate whose rate is this share below that at its best size is not tried with larger batches."""
CHOICE_MARGIN: Final = 0.10
"""Another candidate than the most likely one must read more by this share. What a noisy sweep gets wrong is kept for good, and
several threads for a run look better in it than they are in service, where they wait for each other while HTTP has a core."""
ALONE_SHARE: Final = 0.8
"""A second session costs memory: a crop that is alone must be read in this share of the time."""

Clock = Callable[[], float]


class _Contender:
    """A session and as many threads to run it at once as a candidate has lanes."""

    def __init__(self, session: Session, candidate: Candidate, crop_shape: tuple[int, int], clock: Clock) -> None:
        self.session, self.candidate = session, candidate
        self._crop_shape, self._clock = crop_shape, clock
        self._pool = ThreadPoolExecutor(candidate.lanes, thread_name_prefix="tuning")

    def __enter__(self) -> _Contender:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()

    def round_s(self, size: int, n_runs: int) -> float:
        """Seconds of a run of `size` crops, when every lane does `n_runs` of them."""
        crops = word_crops(*self._crop_shape, size)

        def run() -> None:
            for _ in range(n_runs):
                run_checked(self.session, crops)

        started_s = self._clock()
        for lane in [self._pool.submit(run) for _ in range(self.candidate.lanes)]:
            lane.result()
        return (self._clock() - started_s) / n_runs


def sweep(
    sessions: Sequence[tuple[Candidate, Session]],
    crop_shape: tuple[int, int],
    sizes: Sequence[int],
    limit_s: float = SWEEP_S,
    clock: Clock = time.monotonic,
) -> list[Sweep]:
    """Run batches from all lanes of each candidate at once, larger and larger, while that pays and there is time.

    The candidates are measured in turn, size by size: a slow second of the machine hits all of them.

    Args:
        sessions: Candidates, each with a session opened for it.
        crop_shape: Height and width.
        sizes: Batch sizes to try, ascending.
        limit_s: No further size is begun after this.
        clock: Monotonic, seconds.

    Returns:
        What was found for each candidate, in their order.

    Raises:
        Exception: whatever a session raises, or `InferenceError` when its answers have the wrong shape.
    """
    with ExitStack() as stack:
        contenders = [stack.enter_context(_Contender(session, candidate, crop_shape, clock)) for candidate, session in sessions]
        for contender in contenders:
            contender.round_s(sizes[0], 1)  # the first run of all is not like the others
        found = [Sweep(candidate, {}) for candidate, _ in sessions]
        left = list(zip(contenders, found, strict=True))
        end_s = clock() + limit_s
        for size in sizes:
            durations_s = _in_turn([contender for contender, _ in left], size)
            for (_, each), duration_s in zip(left, durations_s, strict=True):
                each.durations_s[size] = duration_s
            left = [
                (contender, each)
                for contender, each in left
                if each.crops_per_s(size) >= (1 - PAST_BEST) * each.best_crops_per_s
            ]
            if not left or clock() >= end_s:
                break
    return found


def _in_turn(contenders: Sequence[_Contender], size: int) -> list[float]:
    """Seconds of a run of each: the quickest round, as a hiccup only ever makes one slower."""
    best_s = [contender.round_s(size, 1) for contender in contenders]
    n_runs = [min(MAX_RUNS, max(1, ceil(ROUND_S / max(single_s, MIN_ROUND_S)))) for single_s in best_s]
    for _ in range(ROUNDS):
        for index, contender in enumerate(contenders):
            best_s[index] = min(best_s[index], contender.round_s(size, n_runs[index]))
    return best_s


def choose(sweeps: Sequence[Sweep]) -> Sweep:
    """The first candidate, which is the most likely one, unless another one has a clearly higher rate."""
    best = max(sweeps, key=lambda found: found.best_crops_per_s)
    return best if best.best_crops_per_s > (1 + CHOICE_MARGIN) * sweeps[0].best_crops_per_s else sweeps[0]


def pays_alone(wide: Session, usual: Session, crop_shape: tuple[int, int], clock: Clock = time.monotonic) -> bool:
    """Whether a single crop with nothing beside it is read so much sooner by a session with all cores that it is worth having.

    Args:
        wide: With all cores.
        usual: What the lanes run.
        crop_shape: Height and width.
        clock: Monotonic, seconds.
    """
    one_lane = Candidate(1, 1)
    with _Contender(wide, one_lane, crop_shape, clock) as first, _Contender(usual, one_lane, crop_shape, clock) as second:
        wide_s, usual_s = _in_turn([first, second], 1)
    return wide_s <= ALONE_SHARE * usual_s
