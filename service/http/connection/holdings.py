"""What one connection takes of the room for bodies: for each request whose body is here, and for what is not parsed yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.bodies.body import HOLD
from service.http.connection.body_budget import Holding, copies_of
from service.http.connection.shared import Shared
from service.http.head import HEAD_KEY, Head

Owner = RequestResponseCycle | None
"""A request; `None`: what was read and is not parsed."""


class Holdings:
    """Of one connection.

    Args:
        shared: With the budget, and whose an address is.
        peer: Address of the client; empty: it has none.
        give_up: Tells an owner that there is no room for it; it holds nothing more then.
    """

    def __init__(self, shared: Shared, peer: str, give_up: Callable[[Owner], None]) -> None:
        self._shared = shared
        self._peer = peer
        self._give_up = give_up
        self._held: dict[Owner, Holding] = {}

    def take(self, owner: Owner, n_bytes: int) -> bool:
        """Whether there is room for more bytes."""
        holding = self._held.get(owner)
        if holding is None:
            holding = self._held[owner] = self._new(owner)
        return self._shared.budget.take(holding, n_bytes)

    def _new(self, owner: Owner) -> Holding:
        if owner is None:
            return Holding(self._shared.addresses.client_of(self._peer, ()), partial(self._give_up, None))
        head = Head(owner.scope)  # type: ignore[arg-type]  # apps may have keys of their own in a scope, as the next lines do
        owner.scope[HOLD] = partial(self.take, owner)  # type: ignore[typeddict-unknown-key]
        owner.scope[HEAD_KEY] = head  # type: ignore[typeddict-unknown-key]
        self._shared.addresses.check(head)
        return Holding(head.client, partial(self._give_up, owner), copies_of(head.media_type))

    def arrived(self, owner: Owner) -> None:
        """All of it is here: it is not given up any more."""
        holding = self._held.get(owner)
        if holding is not None:
            holding.arriving = False

    def release(self, owner: Owner) -> None:
        """Nothing of it is held any more."""
        holding = self._held.pop(owner, None)
        if holding is not None:
            self._shared.budget.release(holding)
