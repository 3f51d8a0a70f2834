"""Admission: whether the items of a request would wait too long, predicted by Little's law before a pixel is decoded. Pure.

What is ahead of a request, divided by what the engine gets done per second, is what the request will wait. Ahead of crops
of a request with several ("bulk") is everything that was admitted; ahead of a single crop are the other single crops, since
it overtakes bulk, and the share of places that bulk keeps. Of what other clients have, only that counts which they get before
its turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.engine.cost import CostModel
from service.engine.queue import BULK_EVERY

PESSIMISM: Final = 1.35
"""A wait is planned to be this much longer than predicted: runs vary, and answers have a way to go after the last run."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine has to do, in items; those being decoded count."""

    singles: int
    """Single crops that are admitted and not yet running."""
    bulk: int
    """The same of requests with several crops."""
    running: int
    busy_lanes: int
    decode_s: float = 0.0
    """Seconds until the decode threads come to the new request."""
    between: int = 0
    """Bulk items of other clients that run between the first and the last item of the new request."""

    def ahead_of(self, bulk: bool) -> int:
        """Items that will run before a new request's."""
        if bulk:
            return self.singles + self.bulk
        return self.singles + min(self.bulk, self.singles // (BULK_EVERY - 1))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds from now until the first crop of a request starts to run, until that crop is read, and until all are read."""

    start_s: float
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a request may be predicted to wait."""

    single_s: float
    bulk_s: float

    def of(self, bulk: bool) -> float:
        """The budget of one class, in seconds."""
        return self.bulk_s if bulk else self.single_s


def predict(load: Load, n_items: int, bulk: bool, cost: CostModel, lanes: int) -> Prediction:
    """What a request would wait.

    Args:
        load: What is ahead of the request.
        n_items: Its crops.
        bulk: Whether other requests' single crops overtake it.
        cost: Cost of a run.
        lanes: Runs in flight at once.

    Returns:
        The start is 0 when a lane is free for it.
    """
    ahead = load.ahead_of(bulk)
    per_item_s = cost.duration_s(cost.cap) / cost.cap / lanes
    start_s = 0.0
    if ahead + load.busy_lanes >= lanes:
        # Decoding and inference run at the same time, so the slower of the two decides.
        start_s = max((ahead + load.running) * per_item_s, load.decode_s)
    first_s = start_s + cost.duration_s(min(cost.cap, ahead + n_items))
    return Prediction(start_s, first_s, first_s + (n_items - 1 + load.between) * per_item_s)


def late_by_s(prediction: Prediction, budget_s: float, deadline_s: float) -> float:
    """By how many seconds a request would be answered too late; 0: it may be let in.

    Args:
        prediction: Of the request.
        budget_s: Seconds within which its first crop must be read.
        deadline_s: Seconds from now within which all its crops must be read.
    """
    if prediction.start_s == 0.0:
        return 0.0  # a lane is free: refusing would keep it idle
    return max(0.0, PESSIMISM * prediction.first_s - budget_s, PESSIMISM * prediction.last_s - deadline_s)
