"""What travels through the engine, and the two seams it is tested at: the session below and the observer beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Crop = NDArray[np.uint8]
"""uint8 `[height, width, 3]`, RGB, already resized."""
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


@dataclass(slots=True, eq=False)
class Item:
    """One crop on its way through the engine.

    The engine alone writes `outcome`, once and under its lock; whoever finds it set leaves the item alone.
    """

    deadline_s: float
    """On the engine's monotonic clock."""
    on_settled: Callable[[Item], None]
    """Called once, by the engine's `deliver`, unless the item was abandoned by the one who waits for it."""
    crop: Crop | None = None
    enqueued_s: float = 0.0
    outcome: Outcome | None = None
    token_ids: TokenIds | None = None
    confidences: Confidences | None = None
    error: Exception | None = None
    decode_s: float = 0.0
    """From admission to decoded pixels, waiting for a decode thread included."""
    queue_s: float = 0.0
    inference_s: float = 0.0

    @property
    def pixels(self) -> Crop:
        """The decoded crop of an item that was submitted."""
        if self.crop is None:
            raise ValueError("the item was never submitted")
        return self.crop


class Session(Protocol):
    """Something that reads a batch. `run` must be safe to call from several threads at once."""

    def run(self, crops: NDArray[np.uint8]) -> tuple[TokenIds, Confidences]:
        """Read uint8 `[batch, height, width, 3]`; both answers are `[batch, max_label_length + 1]`."""
        ...


class Observer(Protocol):
    """What the engine tells the metrics. Called from several threads, outside the engine's lock."""

    def admitted(self, n_items: int) -> None:
        """`n_items` were let in."""
        ...

    def refused(self, n_items: int) -> None:
        """`n_items` were turned away because the queue is full."""
        ...

    def settled(self, outcome: Outcome, n_items: int) -> None:
        """`n_items` ended as `outcome`."""
        ...

    def queue_waited(self, wait_s: float) -> None:
        """One item left the queue for a batch, after `wait_s`."""
        ...

    def batch_ran(self, n_items: int, duration_s: float) -> None:
        """One run of the session is over, well or badly."""
        ...


class QueueFullError(Exception):
    """The queue has no room for all items of a request."""


class EngineDownError(Exception):
    """The engine takes no items: not started yet, stopping, or all of its lanes are dead."""


class InferenceError(Exception):
    """The session failed on this item, also when it ran alone, or gave an answer that cannot be right."""
