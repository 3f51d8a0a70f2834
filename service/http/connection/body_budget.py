"""How much memory all bodies together may take, and which client is refused when they would take more.

A body counts as far as it has arrived, not as announced, since announcing costs nothing. It counts until it is answered. When
the room is used up, the client that holds most of it is told to try again, for its largest body that is still arriving; so a
small body that arrives quickly finds room whatever other clients hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from typing import Final

from service.config import Settings
from service.core.host import Tally
from service.process.memory import memory_limit_bytes

SMALL_BODY_BYTES: Final = 2**16
"""Bodies of up to this size may also use the reserve."""
RESERVE_SHARE: Final = 8
"""The reserve is this fraction (one part in 8) of the room, in addition to it."""
MEMORY_SHARE: Final = 3
"""Unless a setting says otherwise, one part in 3 of the memory is for bodies; pictures and the model need the rest."""
USUAL_MEMORY_BYTES: Final = 2**32
"""Assumed where the system does not tell."""
COPIES: Final = 2
"""How often forms and JSON are in memory: the files are copied out of the body, and both are there for a while."""


class Holding:
    """The memory that one body takes.

    Args:
        client: Whose body it is.
        refuse: Gives the body up and tells the client; its bytes are free soon afterwards.
        copies: How often the body is in memory at once, at most.
    """

    __slots__ = ("arriving", "client", "copies", "n_bytes", "refuse")

    def __init__(self, client: Hashable, refuse: Callable[[], None], copies: int = 1) -> None:
        self.client = client
        self.refuse = refuse
        self.copies = copies
        self.n_bytes = 0
        self.arriving = True
        """Whether the body is still arriving; only then can it be given up."""


def copies_of(media_type: str) -> int:
    """How often a body of this type is in memory at once, at most."""
    return COPIES if media_type.startswith(("multipart/", "application/json")) else 1


class BodyBudget:
    """The bodies of one server.

    Args:
        max_bytes: Memory that they may take together, besides the reserve for small ones.
        tally: Of the bytes that are held, where other processes' count too; who is refused is chosen among this one's.
    """

    def __init__(self, max_bytes: int, tally: Tally | None = None) -> None:
        self.max_bytes = max_bytes
        self._reserve_bytes = max_bytes // RESERVE_SHARE
        self._holdings: dict[Holding, None] = {}
        """In the order in which they began."""
        self.held_bytes = 0
        self._tally = tally

    def take(self, holding: Holding, n_bytes: int) -> bool:
        """More of a body has arrived; returns whether it may be kept. If not, `holding` has been refused and holds nothing."""
        n_bytes *= holding.copies
        small = holding.n_bytes + n_bytes <= SMALL_BODY_BYTES * holding.copies
        most = self.max_bytes + (self._reserve_bytes if small else 0)
        self._holdings[holding] = None
        holding.n_bytes += n_bytes
        self.held_bytes += n_bytes
        if self._tally is not None:
            self._tally.tell(self.held_bytes)
            most -= self._tally.others()
        while self.held_bytes > most:
            victim = self._victim() or holding
            self.release(victim)
            victim.refuse()
            if victim is holding:
                return False
        return True

    def release(self, holding: Holding) -> None:
        """The body has been answered or given up: its memory is free."""
        if holding in self._holdings:
            del self._holdings[holding]
            self.held_bytes -= holding.n_bytes
            if self._tally is not None:
                self._tally.tell(self.held_bytes)

    def _victim(self) -> Holding | None:
        """The largest body that is arriving, of the client with the most bytes; of equal ones the oldest."""
        by_client: dict[Hashable, int] = {}
        for holding in self._holdings:
            by_client[holding.client] = by_client.get(holding.client, 0) + holding.n_bytes
        arriving = (holding for holding in self._holdings if holding.arriving)
        return max(arriving, key=lambda holding: (by_client[holding.client], holding.n_bytes), default=None)


def bodies_bytes(settings: Settings) -> int:
    """The room for bodies in bytes: the setting, or else a third of the memory, but at least what the largest body takes."""
    return settings.max_bodies_bytes or max(COPIES * settings.max_body_bytes, int(_memory_bytes() / MEMORY_SHARE))


def _memory_bytes() -> float:
    """What this process may use: the container's memory, or the machine's."""
    try:
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not available on Windows
        machine_bytes = USUAL_MEMORY_BYTES
    return min(memory_limit_bytes(), machine_bytes)
