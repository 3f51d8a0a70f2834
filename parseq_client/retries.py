"""When a request is sent again, and how long after. Pure: time and chance are given.

Everything the client asks for is a read: it changes nothing in the service, so that it may be sent again whatever became of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

BUSY: Final = frozenset({429, 503})
AGAIN: Final = BUSY | {408, 502, 504}
"""Statuses after which the same request may do better."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 8.0
MIN_TIMEOUT_S: Final = 0.1
"""The shortest time that the service accepts."""


@dataclass
class Patience:
    """The time and the attempts that one call has left.

    Args:
        timeout_s: For all of it.
        attempts: How often a request is sent, at most; `None`: the time alone decides.
        clock: Monotonic, seconds.
        chance: From 0 to 1.
    """

    timeout_s: float
    attempts: int | None = None
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    end_s: float = field(init=False)
    sent: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """The time begins to run."""
        self.end_s = self.clock() + self.timeout_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative behind it."""
        return self.end_s - self.clock()

    @property
    def is_over(self) -> bool:
        """Whether too little time is left for another attempt."""
        return self.left_s < MIN_TIMEOUT_S

    def pause_s(self, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the next attempt; `None`: there shall be none.

        Without a word from the service the pause doubles, between half of it and all of it, so that clients that were refused
        together do not come back together. What the service says is a minimum, to which up to a quarter is added, or as much
        as the time allows.

        Args:
            retry_after_s: As the service said.
        """
        if self.attempts is not None and self.sent >= self.attempts:
            return None
        if retry_after_s is None:
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.sent - 1)) * (0.5 + 0.5 * self.chance())
        else:
            pause_s = retry_after_s + (0.1 + 0.25 * retry_after_s) * self.chance()
        latest_s = self.left_s - MIN_TIMEOUT_S
        pause_s = pause_s if pause_s <= latest_s else max(latest_s, retry_after_s or pause_s)
        return pause_s if pause_s <= latest_s else None


def retry_after_s(value: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds of the header `Retry-After`, a number or a date (RFC 9110, 10.2.3); `None`: it says nothing."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now()).total_seconds())
