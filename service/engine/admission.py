"""Admission: whether the items of a request would wait too long, predicted by Little's law before a pixel is decoded. Pure.

What is ahead of a request, divided by what the engine gets done per second, is what the request will wait. Ahead of crops
of a request with several ("bulk") is everything that was admitted; ahead of a single crop are the other single crops, since
it overtakes bulk, and the share of places that bulk keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.engine.cost import CostModel
from service.engine.queue import BULK_EVERY

PESSIMISM: Final = 1.35
"""A wait is planned to be this much longer than predicted: runs vary, and answers have a way to go after the last run."""
DECODE_WEIGHT: Final = 0.1
"""Share of a crop's deviation that moves the expected time to decode one."""
MAX_DEVIATION: Final = 2.0
"""A crop counts as this many times slower to decode than expected, at most: one photo must not refuse requests."""
MIN_DECODE_S: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine has to do, in items; those being decoded count."""

    singles: int
    """Admitted and not yet running."""
    bulk: int
    """The same, of requests with several crops."""
    decoding: int
    """Those of both that are still being decoded."""
    running: int
    busy_lanes: int

    def ahead_of(self, bulk: bool) -> int:
        """Items that will run before a newcomer."""
        if bulk:
            return self.singles + self.bulk
        return self.singles + min(self.bulk, self.singles // (BULK_EVERY - 1))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of a request: seconds from now until its first crop starts to run, until that crop is read, and until all are."""

    start_s: float
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a request may be predicted to wait."""

    single_s: float
    bulk_s: float

    def of(self, bulk: bool) -> float:
        """The budget of one class."""
        return self.bulk_s if bulk else self.single_s


class DecodePace:
    """How long the decode threads take per crop while they have work, learnt from how long crops stay with them."""

    def __init__(self) -> None:
        self.per_item_s = 0.0

    def observe(self, duration_s: float, rank: int) -> None:
        """A crop was decoded `duration_s` after its admission, as the `rank`-th of those that were being decoded then."""
        sample_s = duration_s / rank
        highest_s = MAX_DEVIATION * max(MIN_DECODE_S, self.per_item_s)
        self.per_item_s += DECODE_WEIGHT * (min(highest_s, sample_s) - self.per_item_s)


def predict(load: Load, n_items: int, bulk: bool, cost: CostModel, lanes: int, decode_s: float) -> Prediction:
    """What a request would wait.

    Args:
        load: What is ahead of it.
        n_items: Its crops.
        bulk: Whether other requests' single crops overtake it.
        cost: Of a run.
        lanes: Runs in flight at once.
        decode_s: Seconds the decode threads take per crop.

    Returns:
        The start is 0 when a lane is free for it.
    """
    ahead = load.ahead_of(bulk)
    per_item_s = cost.duration_s(cost.cap) / cost.cap / lanes
    start_s = 0.0
    if ahead + load.busy_lanes >= lanes:
        # Decoding and inference run at the same time, so the slower of the two decides.
        start_s = max((ahead + load.running) * per_item_s, load.decoding * decode_s)
    first_s = start_s + cost.duration_s(min(cost.cap, ahead + n_items))
    return Prediction(start_s, first_s, first_s + (n_items - 1) * max(per_item_s, decode_s))


def late_by_s(prediction: Prediction, budget_s: float, deadline_s: float) -> float:
    """How much too late a request would be answered; 0: let it in.

    Args:
        prediction: Of the request.
        budget_s: For its first crop to be read.
        deadline_s: For all of them to be read.
    """
    if prediction.start_s == 0.0:
        return 0.0  # a lane is free: refusing would keep it idle
    return max(0.0, PESSIMISM * prediction.first_s - budget_s, PESSIMISM * prediction.last_s - deadline_s)
