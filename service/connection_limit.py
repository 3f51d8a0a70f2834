"""How many connections there may be at once, and which of them has to go when there is one more."""

from __future__ import annotations

from typing import Protocol


class IdleConnection(Protocol):
    """One on which nothing is asked."""

    def hang_up(self) -> None:
        """Close it."""


class ConnectionLimit:
    """The connections of one server. It keeps those that are idle, in the order in which they fell idle.

    Args:
        max_connections: At least 1.
    """

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._idle: dict[IdleConnection, None] = {}

    def is_idle(self, connection: IdleConnection) -> None:
        """From now on it may be closed to make room."""
        self._idle[connection] = None

    def is_busy(self, connection: IdleConnection) -> None:
        """It asks something, or is closed."""
        self._idle.pop(connection, None)

    def make_room(self, n_connections: int) -> bool:
        """Whether a new connection, the last of so many, may stay: perhaps in place of the one that is idle for longest."""
        if n_connections <= self.max_connections:
            return True
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        self.is_busy(longest)
        longest.hang_up()
        return True
