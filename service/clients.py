"""Whose request it is, noted in its scope: clients share the queue and the decode threads fairly."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from starlette.types import Scope

CLIENT_KEY: Final = "parseq.client"


def mark_client(scope: Scope, client: Hashable) -> None:
    """Note that the request is this client's: the digest of an API key, or an address."""
    scope[CLIENT_KEY] = client


def client_of(scope: Scope) -> Hashable:
    """Who was noted; `None` when nobody was."""
    client: Hashable = scope.get(CLIENT_KEY)
    return client
