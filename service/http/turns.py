"""Breaks in work that would hold up the event loop, so that other requests get their turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.001
"""Seconds between breaks. Answering a single crop takes little more, and it waits for all work in front of it."""


class Turns:
    """The breaks of one piece of work that is done step by step.

    Args:
        clock: Monotonic clock in seconds.
    """

    __slots__ = ("_clock", "_ends_s")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_s = clock() + TURN_S

    async def step(self) -> None:
        """To be awaited between two steps: lets others go first when the turn is over."""
        if self._clock() >= self._ends_s:
            await asyncio.sleep(0)
            self._ends_s = self._clock() + TURN_S
