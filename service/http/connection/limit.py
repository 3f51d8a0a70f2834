"""How many connections there may be at once, and which of them has to go when there is one more.

Connections are shared among clients, told apart by address, once they are scarce: who holds more than its share gives way to
who holds less, never the other way round. What a client holds while nobody else wants it harms nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from enum import Enum, auto
from typing import Final, Protocol

SLOW_HEAD_S: Final = 1.0
"""A head that takes longer gives way to any newcomer: they come in one packet, or in a few."""
SLOW_BODY_S: Final = 10.0
"""So does a body that takes longer."""
FAR_MORE: Final = 2
"""So many times what the newcomer's client holds."""


class Activity(Enum):
    """What goes on on a connection; those that give way first come first."""

    IDLE = auto()
    UNREAD = auto()
    """Its client does not read its answers."""
    HEAD = auto()
    """The head of a request is arriving."""
    BODY = auto()
    """The body is."""
    BUSY = auto()
    """A request is complete and not answered: it never gives way."""


class Connection(Protocol):
    """One that can be closed in favor of another."""

    def give_way(self) -> None:
        """Say why, if something was asked, and close."""

    def drop(self) -> None:
        """Close at once."""


class _Entry:
    __slots__ = ("activity", "client", "since_s")

    def __init__(self, client: Hashable | None, since_s: float) -> None:
        self.client, self.since_s, self.activity = client, since_s, Activity.IDLE


class ConnectionLimit:
    """The connections of one server.

    Args:
        max_connections: At least 1.
        max_surplus: Connections beyond, at most, each of which may ask a probe, or is being told that it is one too many:
            the oldest of them is dropped for one more.
        clock: Monotonic, seconds.
    """

    def __init__(self, max_connections: int, max_surplus: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_connections = max_connections
        self._max_surplus = max_surplus
        self._clock = clock
        self._entries: dict[Connection, _Entry] = {}
        self._by_activity: dict[Activity, dict[Connection, _Entry]] = {activity: {} for activity in Activity}
        """Those of `_entries`, in the order in which they came to a activity."""
        self._counts: dict[Hashable, int] = {}
        """Connections by client; those of trusted proxies, which speak for many, are not among them."""
        self._surplus: dict[Connection, tuple[Hashable | None, bool]] = {}
        """Beyond the limit: whose they are, and whether they wait for room, as those do that came when there was none."""
        self._n_waiting = 0

    def enter(self, connection: Connection, client: Hashable | None) -> bool:
        """A new connection: whether there is room for it, perhaps made by another one that gives way.

        Args:
            connection: Idle so far.
            client: Whose it is; `None`: a trusted proxy's, which is held to no share.
        """
        if len(self._entries) + self._n_waiting < self.max_connections or self._make_room(client):
            self._add(connection, client)
            return True
        self._n_waiting += 1
        self._add_surplus(connection, client, waiting=True)
        return False

    def promote(self, connection: Connection) -> bool:
        """Whether there is room by now for a connection that waits, and for all that have been waiting for longer."""
        waiting = [other for other, (_, waits) in self._surplus.items() if waits]
        if connection in waiting and len(self._entries) + waiting.index(connection) < self.max_connections:
            client = self._surplus[connection][0]
            self._leave_surplus(connection)
            self._add(connection, client)
        return connection in self._entries

    def told(self, connection: Connection) -> None:
        """It has been told that it is one too many, and does not wait for room any more."""
        client, waiting = self._surplus.get(connection, (None, False))
        if waiting:
            self._n_waiting -= 1
            self._surplus[connection] = client, False

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._leave_surplus(connection)
        entry = self._entries.pop(connection, None)
        if entry is None:
            return
        del self._by_activity[entry.activity][connection]
        if entry.client is not None:
            self._counts[entry.client] -= 1
            if not self._counts[entry.client]:
                del self._counts[entry.client]

    def change(self, connection: Connection, activity: Activity) -> None:
        """What goes on on it now."""
        entry = self._entries.get(connection)
        if entry is None or entry.activity is activity:
            return
        del self._by_activity[entry.activity][connection]
        entry.activity, entry.since_s = activity, self._clock()
        self._by_activity[activity][connection] = entry

    def _add(self, connection: Connection, client: Hashable | None) -> None:
        entry = _Entry(client, self._clock())
        self._entries[connection] = self._by_activity[Activity.IDLE][connection] = entry
        if client is not None:
            self._counts[client] = self._counts.get(client, 0) + 1

    def _add_surplus(self, connection: Connection, client: Hashable | None, waiting: bool) -> None:
        self._surplus[connection] = client, waiting
        if len(self._surplus) > self._max_surplus:
            oldest = next(iter(self._surplus))
            self._leave_surplus(oldest)
            oldest.drop()

    def _leave_surplus(self, connection: Connection) -> None:
        self.told(connection)
        self._surplus.pop(connection, None)

    def _make_room(self, client: Hashable | None) -> bool:
        victim = self._victim(client)
        if victim is None:
            return False
        entry = self._entries[victim]
        self.leave(victim)
        self._add_surplus(victim, entry.client, waiting=False)  # until it has been told
        victim.give_way()
        return True

    def _victim(self, client: Hashable | None) -> Connection | None:
        """Who gives way to a newcomer of `client`: whoever holds too much, then whoever loses little by it."""
        held = 0 if client is None else self._counts.get(client, 0) + 1
        n_clients = len(self._counts) + (client is not None and client not in self._counts)
        n_shared = sum(self._counts.values()) + (-1 if client is None else 1)
        share = n_shared / max(1, n_clients)
        for activity in (Activity.IDLE, Activity.UNREAD, Activity.HEAD, Activity.BODY):
            # What has begun is taken only from those that hold far more.
            fewest = held + 1 if activity in (Activity.IDLE, Activity.UNREAD) else FAR_MORE * held
            greedy = self._greediest(activity, max(share, fewest - 1))
            if greedy is not None:
                return greedy
        for connection, entry in self._dispensable():
            if held <= share or entry.client == client or self._held_by(entry) >= held:
                return connection
        return None

    def _greediest(self, activity: Activity, above: float) -> Connection | None:
        """The connection at this activity that came there first, of the client with the most, if it has more than that."""
        most = max(self._counts.values(), default=0)
        found = None
        if most > above:
            for connection, entry in self._by_activity[activity].items():
                if self._held_by(entry) > above:
                    found, above = connection, self._held_by(entry)
                    if above == most:
                        break
        return found

    def _held_by(self, entry: _Entry) -> int:
        return 0 if entry.client is None else self._counts[entry.client]

    def _dispensable(self) -> Iterator[tuple[Connection, _Entry]]:
        """Idle ones, those nobody reads from, and requests that arrive slowly."""
        yield from self._by_activity[Activity.IDLE].items()
        yield from self._by_activity[Activity.UNREAD].items()
        now_s = self._clock()
        for activity, slow_s in ((Activity.HEAD, SLOW_HEAD_S), (Activity.BODY, SLOW_BODY_S)):
            for connection, entry in self._by_activity[activity].items():
                if now_s - entry.since_s < slow_s:
                    break
                yield connection, entry
