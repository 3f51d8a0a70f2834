"""Giving others their turn of the event loop amid work that would hold it up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TURN_S: Final = 0.001
"""A single crop is answered in little more, and waits for whatever is in front of it."""


class Turns:
    """Of one piece of work that is done step by step.

    Args:
        clock: Monotonic, seconds.
    """

    __slots__ = ("_clock", "_ends_s")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_s = clock() + TURN_S

    async def step(self) -> None:
        """Between two steps: let others go first when the turn is over."""
        if self._clock() >= self._ends_s:
            await asyncio.sleep(0)
            self._ends_s = self._clock() + TURN_S
