"""A transport that sends the head of an answer together with its body.

uvicorn writes them one after the other, and uvloop sends what is written at once. A server killed in between would leave the
client with half an answer, which no gateway can ask another replica for: an answer should leave whole or not at all.
"""

from __future__ import annotations

import asyncio
from typing import Any


class WholeAnswers(asyncio.Transport):
    """Keeps what is written until more is, the connection is closed or the event loop has gone round once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`, whose events `loop` handles."""
        super().__init__()
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send `data` with what is held, or hold it if nothing is."""
        if self._held:
            # Not held again, so that what waits is bounded and the transport can say that it has enough.
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        data, self._held = self._held, b""
        # A connection that is lost has nobody to read it, and uvloop no handle to write to.
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it was closed, by whichever side."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Let what the client sends wait."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection, as asyncio names it."""
        return self._transport.get_extra_info(name, default)
