"""Whose turn it is among connections with requests sent ahead of answers: a few requests a turn, one connection after another.

Sending requests ahead costs a client nothing, but answering even the cheapest of them keeps the one thread that serves HTTP
busy. All such connections share one pace, so that clients which wait for each answer are served in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

EVERY_S: Final = 0.005
"""Seconds between two turns. With four requests a turn, that makes 800 requests a second."""


class Waiting(Protocol):
    """A connection with requests that were read but not parsed."""

    def read_on(self) -> bool:
        """Parse some of them; returns whether there were any."""


class Pace:
    """The pace that the connections of one server share."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, connection: Waiting, loop: asyncio.AbstractEventLoop) -> None:
        """Have the connection read on when its turn comes."""
        self._waiting.append(connection)
        if self._timer is None:
            self._timer = loop.call_later(EVERY_S, self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            while self._waiting:
                if self._waiting.popleft().read_on():
                    break
        finally:  # an error in one connection does not stop the others
            if self._waiting:
                self._timer = loop.call_later(EVERY_S, self._next, loop)
