"""The items that travel through the engine, and the interfaces of the parts around it: session, decoding and observer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from artifact.allowed import Allowed

Crop = NDArray[np.uint8]
"""uint8 `[height, width, 3]`, RGB, already resized."""
Exemplar = dict[str, str] | None
"""Labels that point from an observation of a metric to an example of it: the trace of its request, if it is traced."""
TokenIds = NDArray[np.int64]
"""int64 `[max_label_length + 1]` for one crop, `[batch, max_label_length + 1]` for a batch."""
Confidences = NDArray[np.float32]
"""float32, the shape of the `TokenIds` beside it."""


class Outcome(StrEnum):
    """How an admitted item ended. Every admitted item gets exactly one."""

    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Refusal(StrEnum):
    """Why the crops of a request were turned away."""

    QUEUE_FULL = "queue_full"
    PREDICTED_WAIT = "predicted_wait"
    CLIENT_SHARE = "client_share"
    """The client holds its share of the places already, and other clients want theirs."""


class Stage(Enum):
    """How far an item has come."""

    NEW = 0
    DECODING = 1
    """Admitted; its image is not decoded yet."""
    WAITING = 2
    RUNNING = 3
    ENDED = 4


@dataclass(slots=True, eq=False)
class Item:
    """One crop on its way through the engine.

    Only the engine writes `outcome`, once and under its lock; once it is set, the item must not be changed. `stage` and the
    fields after `decode_s` belong to the engine too.
    """

    deadline_s: float
    """On the engine's monotonic clock."""
    on_settled: Callable[[Item], None]
    """Called once, by the engine's `deliver`, unless the item was abandoned."""
    bulk: bool = False
    """Whether it is one of several crops of a request."""
    client: Hashable = None
    """Which client it belongs to; clients take turns."""
    allowed: Allowed | None = None
    """bool `[entries]`: which entries of the vocabulary may be read; `None`: all of them."""
    wants_top: bool = False
    """Whether the candidates of each step are wanted too."""
    crop: Crop | None = None
    outcome: Outcome | None = None
    token_ids: TokenIds | None = None
    confidences: Confidences | None = None
    top_ids: TokenIds | None = None
    """int64 `[max_label_length + 1, candidates]`."""
    top_confidences: Confidences | None = None
    error: Exception | None = None
    decode_s: float = 0.0
    """Seconds from admission to decoded pixels, the wait for a decode thread included."""
    queue_s: float = 0.0
    inference_s: float = 0.0
    batch_size: int = 0
    """Of the run that it was last in."""
    stage: Stage = Stage.NEW
    admitted_s: float = 0.0
    enqueued_s: float = 0.0
    arrival: int = 0
    """Position among all items that were ever queued."""

    demoted: bool = False
    """Whether it is a single crop that counts as bulk, since its image will take long to decode."""
    exemplar: Exemplar = None
    followers: Sequence[Item] = ()
    """Further reads of the same crop, such as of the picture turned; `Engine.follow` adds them, under its lock."""
    is_follower: bool = False
    """Whether it is one of them: metrics count crops, not reads."""

    @property
    def pixels(self) -> Crop:
        """The decoded crop.

        Raises:
            ValueError: The item was never submitted.
        """
        if self.crop is None:
            raise ValueError("the item was never submitted")
        return self.crop


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is told, and what it shall give, besides the usual."""

    allowed: Allowed | None
    """bool `[batch, entries]`; `None`: all may be read."""
    top: bool
    """Whether the candidates are wanted."""


class Outputs(NamedTuple):
    """All that a run can give."""

    token_ids: TokenIds
    confidences: Confidences
    top_ids: TokenIds | None = None
    """int64 `[batch, max_label_length + 1, candidates]`; `None`: not wanted, as below."""
    top_confidences: Confidences | None = None

    def first(self, n_crops: int) -> Outputs:
        """Those of the first `n_crops` of the batch."""
        top_ids = None if self.top_ids is None else self.top_ids[:n_crops]
        top_confidences = None if self.top_confidences is None else self.top_confidences[:n_crops]
        return Outputs(self.token_ids[:n_crops], self.confidences[:n_crops], top_ids, top_confidences)


class Session(Protocol):
    """Something that reads a batch. Its methods must be safe to call from several threads at once."""

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]`; both answers are `[batch, max_label_length + 1]`."""
        ...

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same, of a model that can be told and can give what is wanted."""
        ...


class Decoding(Protocol):
    """What admission asks the threads that decode."""

    def backlog_s(self, bulk: bool) -> float:
        """Seconds until all images are decoded that may go before a single crop, or before bulk; estimated without a lock."""
        ...

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        """Seconds until such a request of this client would have its turn; usually no more than `backlog_s`."""
        ...


class Observer(Protocol):
    """What the engine tells the metrics. Called from several threads, outside the engine's lock."""

    def admitted(self, n_items: int) -> None:
        """`n_items` were let in."""
        ...

    def refused(self, n_items: int, refusal: Refusal) -> None:
        """`n_items` were turned away."""
        ...

    def settled(self, outcome: Outcome, n_items: int) -> None:
        """`n_items` ended as `outcome`."""
        ...

    def queue_waited(self, wait_s: float, exemplar: Exemplar) -> None:
        """One item left the queue for a batch, after `wait_s`."""
        ...

    def batch_ran(self, n_items: int, duration_s: float, exemplar: Exemplar) -> None:
        """One run of the session is over, successful or not."""
        ...


class CropEngine(Protocol):
    """What those who serve requests ask of an engine, which may be in another process."""

    def admit(self, items: Sequence[Item]) -> None:
        """Let in all items of a request, or none: `Engine.admit`."""
        ...

    def refusal_of(self, n_items: int, bulk: bool, timeout_s: float, client: Hashable = None) -> QueueFullError | None:
        """Why `admit` would turn away such a request now: `Engine.refusal_of`."""
        ...

    def demote(self, item: Item) -> None:
        """The image of an admitted single crop will take long to decode."""
        ...

    def submit(self, item: Item, crop: Crop) -> None:
        """Queue the decoded crop of an admitted item."""
        ...

    def follow(self, leader: Item, followers: Sequence[Item]) -> None:
        """Queue further reads of an admitted item: `Engine.follow`."""
        ...

    def fail(self, item: Item, error: Exception) -> None:
        """End an admitted item that will never be submitted."""
        ...

    def abandon(self, items: Sequence[Item], outcome: Outcome) -> None:
        """End those of `items` that have not ended, and their followers, since nobody waits for them."""
        ...


class QueueFullError(Exception):
    """The items of a request were turned away: there is no room for all of them, or they would wait too long.

    Args:
        refusal: Why.
        wait_s: Predicted, until the first of them would have run.
        retry_after_s: When the same request can be expected to be let in.
    """

    def __init__(self, refusal: Refusal, wait_s: float, retry_after_s: float) -> None:
        super().__init__(f"{refusal}: a wait of {wait_s:.3f} s, try again in {retry_after_s:.3f} s")
        self.refusal = refusal
        self.wait_s = wait_s
        self.retry_after_s = retry_after_s


class EngineDownError(Exception):
    """The engine takes no items: not started yet, stopping, or all of its lanes are dead."""


class InferenceError(Exception):
    """The session failed on this item, also when it ran alone, or gave an answer that cannot be right."""
