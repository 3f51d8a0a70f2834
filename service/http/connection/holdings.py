"""What one connection takes of the room for bodies: for each request with a body, and for bytes not parsed yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.bodies.body import HOLD
from service.http.connection.body_budget import Holding, copies_of
from service.http.connection.shared import Shared
from service.http.head import HEAD_KEY, Head

Owner = RequestResponseCycle | None
"""A request; `None`: the bytes that were read and are not parsed."""


class Holdings:
    """The holdings of one connection.

    Args:
        shared: Has the budget, and tells clients apart by address.
        peer: Address of the other end; empty: it has none.
        give_up: Called with an owner that has lost its room; it holds nothing more then.
    """

    def __init__(self, shared: Shared, peer: str, give_up: Callable[[Owner], None]) -> None:
        self._shared = shared
        self._peer = peer
        self._give_up = give_up
        self._held: dict[Owner, Holding] = {}

    def take(self, owner: Owner, n_bytes: int) -> bool:
        """Take room for more bytes of this owner; returns whether there is enough."""
        holding = self._held.get(owner)
        if holding is None:
            holding = self._held[owner] = self._new(owner)
        return self._shared.budget.take(holding, n_bytes)

    def _new(self, owner: Owner) -> Holding:
        if owner is None:
            return Holding(self._shared.addresses.client_of(self._peer, ()), partial(self._give_up, None))
        scope: Scope = owner.scope  # type: ignore[assignment]  # servers and apps may have keys of their own in a scope
        scope[HOLD] = partial(self.take, owner)
        head: Head | None = scope.get(HEAD_KEY)
        if head is None:  # the app has not been given it yet: earlier requests are unanswered
            head = scope[HEAD_KEY] = Head(scope)
            self._shared.addresses.check(head)
        return Holding(head.client, partial(self._give_up, owner), copies_of(head.media_type))

    def arrived(self, owner: Owner) -> None:
        """The owner's body is complete: it is not given up any more."""
        holding = self._held.get(owner)
        if holding is not None:
            holding.arriving = False

    def release(self, owner: Owner) -> None:
        """The owner is done: its memory is free."""
        holding = self._held.pop(owner, None)
        if holding is not None:
            self._shared.budget.release(holding)
