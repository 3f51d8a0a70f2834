"""The sweep at warm-up: which lanes, threads and batch cap this model runs best with, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import Final

from service.engine.batcher import run_checked
from service.engine.session import blank_crops
from service.engine.topology import CHOICE_SLACK, Candidate, Sweep
from service.engine.types import Session

SWEEP_S: Final = 1.5
"""About what all sweeps together may take, first runs and loading apart."""
ROUND_S: Final = 0.03
"""What is timed lasts about this long, and longer where a single run does."""
ROUNDS: Final = 2
MIN_ROUND_S: Final = 1e-6
MAX_RUNS: Final = 64

Clock = Callable[[], float]


def sweep(
    session: Session,
    candidate: Candidate,
    crop_shape: tuple[int, int],
    sizes: Sequence[int],
    limit_s: float,
    clock: Clock = time.monotonic,
) -> Sweep:
    """Run batches of blank crops from all lanes at once, larger and larger, while that pays and there is time.

    Args:
        session: Opened for the candidate.
        candidate: Lanes and threads.
        crop_shape: Height and width.
        sizes: Batch sizes to try, ascending.
        limit_s: No further size is begun after this.
        clock: Monotonic, seconds.

    Raises:
        Exception: whatever the session raises, or `InferenceError` when its answers have the wrong shape.
    """
    with ThreadPoolExecutor(candidate.lanes, thread_name_prefix="tuning") as pool:

        def round_s(size: int, n_runs: int) -> float:
            """Seconds until every lane has done `n_runs` runs."""
            crops = blank_crops(*crop_shape, size)

            def run() -> None:
                for _ in range(n_runs):
                    run_checked(session, crops)

            started_s = clock()
            for lane in [pool.submit(run) for _ in range(candidate.lanes)]:
                lane.result()
            return clock() - started_s

        round_s(sizes[0], 1)  # the first run of all is not like the others
        found = Sweep(candidate, {})
        end_s = clock() + limit_s
        for size in sizes:
            single_s = round_s(size, 1)
            n_runs = min(MAX_RUNS, max(1, ceil(ROUND_S / max(single_s, MIN_ROUND_S))))
            # The quickest round: a hiccup only ever makes one slower.
            found.durations_s[size] = min(single_s, *(round_s(size, n_runs) / n_runs for _ in range(ROUNDS)))
            if found.crops_per_s(size) < (1 - CHOICE_SLACK) * found.best_crops_per_s or clock() >= end_s:
                break
    return found


def choose(sweeps: Sequence[Sweep]) -> Sweep:
    """The candidate with the highest rate; among those that are alike, the one whose batches are over soonest."""
    enough = (1 - CHOICE_SLACK) * max(found.best_crops_per_s for found in sweeps)
    alike = [found for found in sweeps if found.best_crops_per_s >= enough]
    return min(alike, key=lambda found: found.durations_s[found.knee])
