"""Admission: whether the items of a request would wait too long, predicted by Little's law before a pixel is decoded. Pure.

What is ahead of a request, divided by what the engine gets done per second, is what the request will wait. Ahead of crops
of a request with several ("bulk") is everything that was admitted; ahead of a single crop are the other single crops, since
it overtakes bulk, and the share of places that bulk keeps. Of what other clients have, only that counts which they get before
its turn.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from service.engine.cost import CostModel
from service.engine.places import Places
from service.engine.queue import BULK_EVERY
from service.engine.types import Decoding, QueueFullError, Refusal

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


UNBOUNDED: Final = Budgets(single_s=math.inf, bulk_s=math.inf)


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


class NoDecoding:
    """Stands in for `Decoding` where decoding takes no time worth counting."""

    def backlog_s(self, bulk: bool) -> float:
        """0: nothing waits to be decoded."""
        return 0.0

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        """0: nobody waits for a turn."""
        return 0.0


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """All that `Admission` decides by, for those who decide in another process."""

    capacity: int
    n_taken: int
    singles: int
    """Places held by single crops, reserved or waiting."""
    bulk: int
    """The same of bulk."""
    running: int
    busy_lanes: int
    first_bulk: tuple[float, Hashable] | None
    """Deadline and client of the most urgent bulk that waits."""
    holders: Mapping[Hashable, tuple[int, int]]
    """By client: places of its single crops, and of its bulk."""
    cap: int
    """The largest batch worth running."""
    run_times: Mapping[int, float]
    """Seconds of a run by batch size, as they are now."""


class Admission:
    """Who is let in, from how full the queue is and how the lanes are occupied. Not thread-safe.

    Args:
        places: Of the queue.
        cost: Of a run.
        lanes: Runs in flight at once.
        budgets: How long a request may be predicted to wait.
        decoding: Asked how long newcomers wait to be decoded; `None`: not at all.
    """

    def __init__(
        self, places: Places, cost: CostModel, lanes: int, budgets: Budgets = UNBOUNDED, decoding: Decoding | None = None
    ) -> None:
        self.cost = cost
        self._places = places
        self._lanes = lanes
        self._budgets = budgets
        self._decoding = decoding or NoDecoding()
        self._running = 0
        """Items in runs."""
        self._busy_lanes = 0

    def predict(self, n_items: int, bulk: bool, deadline_s: float = -math.inf) -> Prediction:
        """What a request would wait at most if it came now; without a deadline, no bulk counts as more urgent."""
        places = self._places
        singles, others = places.held(False), places.held(True)
        if others and places.bulk_precedes(deadline_s):  # how much of the bulk is more urgent is not worth counting
            singles, others = singles + others, 0
        decode_s = self._decoding.backlog_s(bulk) if singles or others else 0.0
        load = Load(singles, others, self._running, self._busy_lanes, decode_s)
        return predict(load, n_items, bulk, self.cost, self._lanes)

    def refusal_of(
        self, n_items: int, bulk: bool, deadline_s: float, now_s: float, client: Hashable = None
    ) -> QueueFullError | None:
        """Why `admit` would turn away such a request now; `None`: it would let it in."""
        if not self._places.n_taken and self._busy_lanes < self._lanes and n_items <= self._places.capacity:
            return None  # a lane is free: all that follows would come to the same
        prediction = self.predict(n_items, bulk, deadline_s)
        if not self._places.has_room(client, n_items):
            return self._no_room(n_items, client, prediction.start_s)
        budget_s = self._budgets.of(bulk)
        late_s = late_by_s(prediction, budget_s, deadline_s - now_s)
        if late_s > 0:  # that assumed everything to be ahead of it: now exactly
            prediction = self._predict_turn(n_items, bulk, deadline_s, client)
            late_s = late_by_s(prediction, budget_s, deadline_s - now_s)
        return QueueFullError(Refusal.PREDICTED_WAIT, prediction.start_s, late_s) if late_s > 0 else None

    def _predict_turn(self, n_items: int, bulk: bool, deadline_s: float, client: Hashable) -> Prediction:
        """What a request of this client would wait, considering that clients take turns."""
        places = self._places
        of_bulk = places.ahead_of(client, True, 1)
        if bulk:
            singles = places.held(False)
            between = places.ahead_of(client, True, n_items) - of_bulk
        else:
            singles, between = places.ahead_of(client, False, 1), 0
            if of_bulk and places.bulk_precedes(deadline_s, client):
                singles, of_bulk = singles + of_bulk, 0
        decode_s = self._decoding.wait_s(bulk, client, deadline_s)
        load = Load(singles, of_bulk, self._running, self._busy_lanes, decode_s, between)
        return predict(load, n_items, bulk, self.cost, self._lanes)

    def _no_room(self, n_items: int, client: Hashable, wait_s: float) -> QueueFullError:
        places = self._places
        lacking, refusal = n_items - places.free, Refusal.QUEUE_FULL
        if places.held_by_others(client):
            over = places.held_by(client) + n_items - places.share_of(client, n_items)
            if places.held_by(client) and over > 0:
                lacking, refusal = min(lacking, over * places.n_holders), Refusal.CLIENT_SHARE
        retry_after_s = lacking * self.cost.duration_s(self.cost.cap) / self.cost.cap / self._lanes
        return QueueFullError(refusal, wait_s, retry_after_s)
