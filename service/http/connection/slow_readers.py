"""Clients that do not read their answers: these stay in memory, and keep a connection that others may need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from service.http.connection.whole_writes import WholeAnswers

MAX_LOOK_EVERY_S: Final = 1.0
LOOKS_PER_TIMEOUT: Final = 4


class Backlog:
    """The part of its answers that one client has not read.

    Args:
        transport: Transport of its connection.
    """

    def __init__(self, transport: WholeAnswers) -> None:
        self._transport = transport
        self._since_s: float | None = None
        self._sent_bytes = 0

    def age_s(self, now_s: float) -> float:
        """Seconds for which the oldest unread bytes have been seen waiting; 0: nothing waits.

        Some progress does not reset it: all bytes that waited when they were first seen must have left.
        """
        waiting_bytes = self._transport.get_write_buffer_size()
        if not waiting_bytes:
            self._since_s = None
            return 0.0
        if self._since_s is None or self._transport.sent_bytes - waiting_bytes >= self._sent_bytes:
            self._since_s, self._sent_bytes = now_s, self._transport.sent_bytes
        return now_s - self._since_s


class WatchedConnection(Protocol):
    """A connection whose backlog is looked at."""

    def look_at_backlog(self, now_s: float) -> None:
        """Close the connection if its backlog is too old.

        Args:
            now_s: Time of the event loop.
        """


class SlowReaders:
    """Looks at the backlogs of a server's connections at intervals, as long as there are connections.

    Args:
        timeout_s: How old a backlog may become, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._every_s = min(MAX_LOOK_EVERY_S, timeout_s / LOOKS_PER_TIMEOUT)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connections: Iterable[WatchedConnection], loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look at these connections, unless that has begun already."""
        if self._timer is None:
            self._timer = loop.call_later(self._every_s, self._look, connections, loop)

    def _look(self, connections: Iterable[WatchedConnection], loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        present = list(connections)
        for connection in present:
            connection.look_at_backlog(loop.time())
        if present:
            self.watch(connections, loop)
