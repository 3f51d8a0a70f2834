"""Places in the queue and who holds them: how many there are, and how clients share them. Pure.

When places run short, each client has a fair share: places that nobody wants may be used by others, and a client that holds
less than its share is let in although others hold all places.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

EXTRA_PLACES: Final = 0.5
"""Places beyond the capacity, as a part of it, for clients that hold less than their share when all places are taken."""


class Places:
    """Counts of places. Not thread-safe.

    Args:
        capacity: Items reserved or waiting, at most; `EXTRA_PLACES` more for clients that hold less than their share.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n_taken = 0
        """Slots held, reserved or waiting."""
        self._held: dict[Hashable, dict[bool, int]] = {}
        """By client: slots of its single crops (`False`) and of its bulk (`True`); clients without slots are left out."""

    def held(self, bulk: bool) -> int:
        """Slots held by one class, reserved or waiting."""
        raise NotImplementedError

    def bulk_precedes(self, deadline_s: float, client: Hashable | None = None) -> bool:
        """Whether the most urgent bulk has an earlier deadline; with a client, also whether that bulk is its own."""
        raise NotImplementedError

    @property
    def free(self) -> int:
        """Slots that nobody holds; negative while `EXTRA_PLACES` are in use."""
        return self.capacity - self.n_taken

    @property
    def n_holders(self) -> int:
        """Clients that hold slots."""
        return len(self._held)

    def holders(self) -> Mapping[Hashable, Mapping[bool, int]]:
        """By client: slots of its single crops (`False`) and of its bulk (`True`)."""
        return self._held

    def held_by(self, client: Hashable) -> int:
        """Slots of one client."""
        return sum(self._held[client].values()) if client in self._held else 0

    def held_by_others(self, client: Hashable) -> bool:
        """Whether anybody else holds a slot."""
        return len(self._held) > (client in self._held)

    def ahead_of(self, client: Hashable, bulk: bool, n_items: int) -> int:
        """Items of one class that run before the last of `n_items` more of this client, if clients take turns."""
        own = self._held[client][bulk] if client in self._held else 0
        return own + sum(min(held[bulk], own + n_items) for other, held in self._held.items() if held[bulk] and other != client)

    def has_room(self, client: Hashable, n_items: int) -> bool:
        """Whether the items of a request may be let in: there are places for all, or they are within the client's share."""
        lacking = n_items + self.n_taken - self.capacity
        if lacking <= 0:
            return True
        if lacking > EXTRA_PLACES * self.capacity or not self.held_by_others(client):
            return False
        held = self.held_by(client)
        return held == 0 or held + n_items <= self.share_of(client, n_items)

    def share_of(self, client: Hashable, n_items: int) -> int:
        """Places this client may hold, if every other one wants what it holds and this one wants `n_items` more than it holds.

        Clients that want less than an equal part get what they want; the rest is shared among the others (max-min fairness).
        """
        wanted = [sum(held.values()) for other, held in self._held.items() if other != client]
        wanted = sorted([*wanted, self.held_by(client) + n_items])
        left = self.capacity
        for index, places in enumerate(wanted):
            share = left // (len(wanted) - index)
            if places > share:
                return share
            left -= places
        return self.capacity
