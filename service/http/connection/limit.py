"""How many connections there may be at once, and which of them has to go when there is one more.

When connections are scarce, clients, told apart by address, share them: a client that holds more than its share gives way to
one that holds less, never the other way round. As long as nobody else wants them, a client may hold as many as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from enum import Enum, auto
from typing import Final, Protocol

from service.core.host import Tally

SLOW_HEAD_S: Final = 1.0
"""A connection whose head takes longer to arrive gives way to any new one: heads come in one packet, or in a few."""
SLOW_BODY_S: Final = 10.0
"""The same for a body."""
FAR_MORE: Final = 2
"""A request that is arriving is ended only for a client that holds fewer connections by this factor."""


class Activity(Enum):
    """What a connection is busy with, in the order in which connections give way."""

    IDLE = auto()
    UNREAD = auto()
    """Its client does not read its answers."""
    HEAD = auto()
    """The head of a request is arriving."""
    BODY = auto()
    """The body of a request is arriving."""
    BUSY = auto()
    """A request is complete and not answered: it never gives way."""


class Connection(Protocol):
    """A connection that can be closed in favour of another one."""

    def give_way(self) -> None:
        """Close; if a request was arriving, tell its client why."""

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
        max_surplus: Connections beyond that, at most. Each may ask a probe, or is being told that there are too many; the
            oldest is dropped when there is one more.
        clock: Monotonic clock in seconds.
        tally: Of the connections, where other processes' count too; who gives way is chosen among this one's.
    """

    def __init__(
        self,
        max_connections: int,
        max_surplus: int,
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
    ) -> None:
        self.max_connections = max_connections
        self._max_surplus = max_surplus
        self._clock = clock
        self._tally = tally
        self._entries: dict[Connection, _Entry] = {}
        self._by_activity: dict[Activity, dict[Connection, _Entry]] = {activity: {} for activity in Activity}
        """The entries by activity, in the order in which they took it up."""
        self._counts: dict[Hashable, int] = {}
        """Connections by client; those of trusted proxies, which speak for many, are not among them."""
        self._surplus: dict[Connection, tuple[Hashable | None, bool]] = {}
        """Connections beyond the limit: their client, and whether they still wait for room."""
        self._n_waiting = 0

    def enter(self, connection: Connection, client: Hashable | None) -> bool:
        """Enter a new connection; returns whether there is room for it, perhaps since another one gives way.

        Args:
            connection: Idle so far.
            client: Whose it is; `None`: a trusted proxy's, whose connections have no limit but the total.
        """
        if self._n_open() + self._n_waiting < self.max_connections or self._make_room(client):
            self._add(connection, client)
            return True
        self._n_waiting += 1
        self._add_surplus(connection, client, waiting=True)
        return False

    def promote(self, connection: Connection) -> bool:
        """Give a waiting connection room if there is enough, those that came before it counted; returns whether it has room."""
        waiting = [other for other, (_, waits) in self._surplus.items() if waits]
        if connection in waiting and self._n_open() + waiting.index(connection) < self.max_connections:
            client = self._surplus[connection][0]
            self._leave_surplus(connection)
            self._add(connection, client)
        return connection in self._entries

    def told(self, connection: Connection) -> None:
        """The connection has been told that there are too many, and does not wait for room any more."""
        client, waiting = self._surplus.get(connection, (None, False))
        if waiting:
            self._n_waiting -= 1
            self._surplus[connection] = client, False

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        self._leave_surplus(connection)
        entry = self._entries.pop(connection, None)
        if entry is None:
            return
        self._tell()
        del self._by_activity[entry.activity][connection]
        if entry.client is not None:
            self._counts[entry.client] -= 1
            if not self._counts[entry.client]:
                del self._counts[entry.client]

    def change(self, connection: Connection, activity: Activity) -> None:
        """The connection is busy with something else now."""
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
        self._tell()

    def _n_open(self) -> int:
        return len(self._entries) + (0 if self._tally is None else self._tally.others())

    def _tell(self) -> None:
        if self._tally is not None:
            self._tally.tell(len(self._entries))

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
        """Who gives way to a new connection of `client`: a client that holds too many, else a dispensable connection."""
        held = 0 if client is None else self._counts.get(client, 0) + 1
        n_clients = len(self._counts) + (client is not None and client not in self._counts)
        n_shared = sum(self._counts.values()) + (-1 if client is None else 1)
        share = n_shared / max(1, n_clients)
        for activity in (Activity.IDLE, Activity.UNREAD, Activity.HEAD, Activity.BODY):
            # A request that has begun is ended only if its client holds far more.
            fewest = held + 1 if activity in (Activity.IDLE, Activity.UNREAD) else FAR_MORE * held
            greedy = self._greediest(activity, max(share, fewest - 1))
            if greedy is not None:
                return greedy
        for connection, entry in self._dispensable():
            if held <= share or entry.client == client or self._held_by(entry) >= held:
                return connection
        return None

    def _greediest(self, activity: Activity, above: float) -> Connection | None:
        """The oldest connection at this activity, of the client with the most connections, if it has more than `above`."""
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
        """Idle connections, those whose answers nobody reads, and those whose requests arrive slowly."""
        yield from self._by_activity[Activity.IDLE].items()
        yield from self._by_activity[Activity.UNREAD].items()
        now_s = self._clock()
        for activity, slow_s in ((Activity.HEAD, SLOW_HEAD_S), (Activity.BODY, SLOW_BODY_S)):
            for connection, entry in self._by_activity[activity].items():
                if now_s - entry.since_s < slow_s:
                    break
                yield connection, entry
