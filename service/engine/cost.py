"""How long a run of n crops takes, T(n): measured at warm-up, corrected by every run since. Pure: no clock of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

KNEE_SLACK: Final = 0.05
"""A batch is large enough once a crop costs at most this much more than at the best size; beyond it only latency grows."""
PACE_WEIGHT: Final = 0.05
"""How much of a run's deviation is applied to all sizes: the machine is faster or slower than at warm-up."""
SHAPE_WEIGHT: Final = 0.05
"""How much of it is applied to the sizes next to the one that ran: the curve has another shape."""
MAX_DEVIATION: Final = 2.0
"""A run counts as this many times slower or faster than expected, at most: one hiccup must not refuse requests."""
MIN_DURATION_S: Final = 1e-7


class CostModel:
    """T(n), interpolated between measured sizes. Not thread-safe: the engine holds a lock around it.

    Until it is seeded, every run counts as free and the largest batch as the best.

    Args:
        max_batch_size: The largest n ever asked for.
        capped_at_knee: Whether `cap` becomes the knee when seeded; else it stays the largest n.
    """

    def __init__(self, max_batch_size: int, *, capped_at_knee: bool = True) -> None:
        self.max_batch_size = max_batch_size
        self.cap = max_batch_size
        """The largest batch worth running: the knee of T(n)/n as measured at warm-up, or `max_batch_size`."""
        self._capped_at_knee = capped_at_knee
        self._pace = 1.0
        self._sizes: list[int] = []
        self._durations_s: list[float] = []

    def seed(self, durations_s: Mapping[int, float]) -> None:
        """Start from measured runs, forgetting what was known.

        Args:
            durations_s: Seconds of a run by batch size, measured under the load of all lanes.

        Raises:
            ValueError: There is no measurement, or one of an impossible size.
        """
        if not durations_s or min(durations_s) < 1:
            raise ValueError("the cost model needs measured runs of at least one crop")
        self._sizes = sorted(durations_s)
        self._durations_s = [max(MIN_DURATION_S, durations_s[size]) for size in self._sizes]
        self._pace = 1.0
        self._raise_from(0)
        if self._capped_at_knee:
            self.cap = self._knee()

    def duration_s(self, n_items: int) -> float:
        """T(n): seconds of a run of `n_items`; 0 before it is seeded."""
        if not self._sizes:
            return 0.0
        right = bisect_left(self._sizes, n_items)
        if right == len(self._sizes):  # beyond what was measured a crop costs what it cost there
            return self._pace * self._durations_s[-1] * n_items / self._sizes[-1]
        if right == 0:
            return self._pace * self._durations_s[0]
        weight = self._weight(n_items, right)
        return self._pace * ((1 - weight) * self._durations_s[right - 1] + weight * self._durations_s[right])

    def run_times(self) -> dict[int, float]:
        """T(n) at each measured size, as it is now."""
        return {size: self._pace * duration_s for size, duration_s in zip(self._sizes, self._durations_s, strict=True)}

    def adopt(self, run_times: Mapping[int, float], cap: int) -> None:
        """Take over what another one knows.

        Args:
            run_times: Its `run_times`, by ascending size.
            cap: The largest batch worth running.
        """
        self._sizes, self._durations_s, self._pace, self.cap = list(run_times), list(run_times.values()), 1.0, cap

    def largest_within(self, limit_s: float, max_items: int) -> int:
        """The largest batch up to `max_items` with T(n) <= `limit_s`; 0 when even one crop takes longer."""
        if self.duration_s(max_items) <= limit_s:
            return max_items
        fits, fails = 0, max_items
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.duration_s(middle) <= limit_s:
                fits = middle
            else:
                fails = middle
        return fits

    def observe(self, n_items: int, duration_s: float) -> None:
        """Learn from a run that succeeded."""
        if not self._sizes:
            return
        ratio = max(MIN_DURATION_S, duration_s) / self.duration_s(n_items)
        deviation = min(MAX_DEVIATION, max(1 / MAX_DEVIATION, ratio)) - 1
        self._pace *= 1 + PACE_WEIGHT * deviation
        right = min(bisect_left(self._sizes, n_items), len(self._sizes) - 1)
        left = max(0, right - 1)
        weight = min(1.0, self._weight(n_items, right)) if right else 1.0
        self._durations_s[left] *= 1 + SHAPE_WEIGHT * (1 - weight) * deviation
        self._durations_s[right] *= 1 + SHAPE_WEIGHT * weight * deviation
        if deviation > 0:
            self._raise_from(left)
        else:
            self._lower_to(right)

    def _weight(self, n_items: int, right: int) -> float:
        """Where `n_items` is between the measured size before index `right` (0) and the one at `right` (1)."""
        left_size = self._sizes[right - 1]
        return (n_items - left_size) / (self._sizes[right] - left_size)

    def _raise_from(self, index: int) -> None:
        """A larger batch never takes less time: raise the durations beyond `index` accordingly."""
        for right in range(index + 1, len(self._sizes)):
            self._durations_s[right] = max(self._durations_s[right], self._durations_s[right - 1])

    def _lower_to(self, index: int) -> None:
        """A smaller batch never takes more time: lower the durations before `index` accordingly."""
        for left in range(index - 1, -1, -1):
            self._durations_s[left] = min(self._durations_s[left], self._durations_s[left + 1])

    def _knee(self) -> int:
        # Between two measured sizes T(n)/n only rises or only falls, so its least value is at one of them.
        candidates = [size for size in self._sizes if size <= self.max_batch_size] + [self.max_batch_size]
        worth_s = (1 + KNEE_SLACK) * min(self.duration_s(size) / size for size in candidates)
        return next(size for size in range(1, self.max_batch_size + 1) if self.duration_s(size) / size <= worth_s)
