"""The body of a request as it arrives."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Final

from starlette.types import Receive, Scope

from service.errors import ClientLeftError, Problem, body_too_large

ARRIVAL_PROBLEM: Final = "parseq.arrival_problem"
"""Where in the scope of a request the HTTP server leaves a `Problem` if its body will not arrive; then it wakes the reader."""
HOLD: Final = "parseq.hold"
"""Where the HTTP server leaves a function that counts more bytes for the body, and returns whether there is room for them."""


class Body:
    """The body of one request; it can be read once.

    Args:
        scope: The ASGI scope of the request.
        receive: The ASGI callable of the request.
        announced_bytes: Its length by the head; 0 if that does not say.
        max_bytes: The limit of any body.
    """

    __slots__ = ("_announced_bytes", "_max_bytes", "_receive", "_scope")

    def __init__(self, scope: Scope, receive: Receive, announced_bytes: float, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._announced_bytes = announced_bytes
        self._max_bytes = max_bytes

    async def read(self, max_bytes: int | None = None, too_large: Callable[[float], Problem] | None = None) -> bytes:
        """The whole body. One above the limit is refused before it is read if its length is announced, else while it arrives.

        Args:
            max_bytes: The limit; `None`: that of any body.
            too_large: Words the refusal, given the number of bytes.

        Raises:
            Problem: It is too large, or takes too long, or there is no room for it.
            ClientLeftError: The client left before it was complete.
        """
        most = self._max_bytes if max_bytes is None else max_bytes
        # Before the first `receive`, so that a client that waits for `100 Continue` sends nothing.
        n_bytes = self._announced_bytes
        body = None
        while n_bytes <= most:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            if ARRIVAL_PROBLEM in self._scope:  # whatever has come, even if it looks complete
                raise self._scope[ARRIVAL_PROBLEM]
            piece: bytes = message.get("body", b"")
            if body is None:
                if not message.get("more_body", False) and len(piece) <= most:
                    return piece
                body = BytesIO()  # a list of pieces would fragment the heap, and a bytearray would be copied in the end
            body.write(piece)
            n_bytes = body.tell()
            if not message.get("more_body", False) and n_bytes <= most:
                return body.getvalue()
        raise body_too_large(most) if too_large is None else too_large(n_bytes)

    def hold(self, n_bytes: int) -> None:
        """Count memory for what is unpacked or copied from the body; a negative number gives it back.

        Raises:
            Problem: There is no room for it.
        """
        hold: Callable[[int], bool] | None = self._scope.get(HOLD)
        if hold is not None and not hold(n_bytes):
            raise self._scope[ARRIVAL_PROBLEM]

    async def client_left(self) -> None:
        """Returns when the client closes the connection. To be awaited once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
