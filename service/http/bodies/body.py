"""The body of a request as it arrives."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Final

from starlette.types import Receive, Scope

from service.errors import ClientLeftError, Problem, body_too_large

ARRIVAL_PROBLEM: Final = "parseq.arrival_problem"
"""Where the HTTP server puts a `Problem` into the scope of a request whose body cannot arrive any more, before it wakes us."""
HOLD: Final = "parseq.hold"
"""Where it leaves a function that puts more bytes on the account of the body, and tells whether there is room for them."""


class Body:
    """One that is read once, or not at all.

    Args:
        scope: Of the request.
        receive: Of the request.
        announced_bytes: What its head says; 0: nothing.
        max_bytes: Of any body.
    """

    __slots__ = ("_announced_bytes", "_max_bytes", "_receive", "_scope")

    def __init__(self, scope: Scope, receive: Receive, announced_bytes: float, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._announced_bytes = announced_bytes
        self._max_bytes = max_bytes

    async def read(self, max_bytes: int | None = None, too_large: Callable[[float], Problem] | None = None) -> bytes:
        """The whole body; one above the limit is refused by its announced length before it is read, else while it arrives.

        Args:
            max_bytes: The limit; `None`: that of any body.
            too_large: Words the refusal of so many bytes.

        Raises:
            Problem: It is too large, or takes too long, or there is no room for it.
            ClientLeftError: The client left before it was complete.
        """
        most = self._max_bytes if max_bytes is None else max_bytes
        # Before the first `receive`, so that a client that asks first (100-continue) sends nothing.
        n_bytes = self._announced_bytes
        body = None
        while n_bytes <= most:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            if ARRIVAL_PROBLEM in self._scope:  # whatever has come, and also if it looks like the last of it
                raise self._scope[ARRIVAL_PROBLEM]
            piece: bytes = message.get("body", b"")
            if body is None:
                if not message.get("more_body", False) and len(piece) <= most:
                    return piece
                body = BytesIO()  # a list of pieces would leave large holes in the heap, and a bytearray is copied in the end
            body.write(piece)
            n_bytes = body.tell()
            if not message.get("more_body", False) and n_bytes <= most:
                return body.getvalue()
        raise body_too_large(most) if too_large is None else too_large(n_bytes)

    def hold(self, n_bytes: int) -> None:
        """Count memory that is made of the body: what was packed in it, or a copy of its parts; below 0: that is free again.

        Raises:
            Problem: There is no room for it.
        """
        hold: Callable[[int], bool] | None = self._scope.get(HOLD)
        if hold is not None and not hold(n_bytes):
            raise self._scope[ARRIVAL_PROBLEM]

    async def client_left(self) -> None:
        """Return when the client closes the connection; once the body has been read, nothing else is of interest."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
