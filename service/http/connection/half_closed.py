"""Clients that have closed their sending side: whether they wait for their answers or are gone.

A client that has closed the whole connection looks the same until something is sent to it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

LOOK_S: Final = (0.05, 1.0)
"""Seconds before the first look whether such a client is still there, and between later looks, at most."""


class HalfClosed:
    """Aborts a connection once the system reports that nobody is at its other end.

    Args:
        transport: Transport of the connection.
        loop: The event loop of the connection.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._timer = loop.call_later(LOOK_S[0], self._look, LOOK_S[0])

    def stop(self) -> None:
        """Stop looking."""
        self._timer.cancel()

    def _look(self, after_s: float) -> None:
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
        else:
            after_s = min(2 * after_s, LOOK_S[1])
            self._timer = self._loop.call_later(after_s, self._look, after_s)
