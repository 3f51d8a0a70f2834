"""A transport that sends the head of an answer together with its body, and hangs up so that the answer arrives.

uvicorn writes head and body one after the other, and uvloop sends what is written at once. A server killed in between would
leave the client with half an answer, which no gateway can ask another replica for: an answer should leave whole or not at all.

A connection closed while the client still sends is reset by the operating system, and the answer may be lost with it. So it
is closed for writing first, and what comes is thrown away for a while (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

STATUS_LINE_START: Final = b"HTTP/1.1 "
"""Every answer begins with it, a provisional one as well."""


class WholeAnswers(asyncio.Transport):
    """Keeps what is written until more is, the connection is closed or the event loop has gone round once.

    Args:
        transport: To write to.
        loop: Handles its events.
        linger_s: How long to listen on when it is closed, since the client may still be sending what it began; 0: it does not.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        super().__init__()
        self._transport, self._loop, self._linger_s = transport, loop, linger_s
        self._held = b""
        self._flushing: asyncio.Handle | None = None
        self._announced = False
        self._lingers = False
        self.reading_held = False
        """Whether to read nothing on, whoever asks for it."""
        self.sent_bytes = 0
        """Given to the operating system, or waiting for it."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send `data` with what is held, or hold it if nothing is; to a client that is gone, nothing."""
        if self._held:
            # Not held again, so that what waits is bounded and the transport can say that it has enough.
            data, self._held = self._held + data, b""
            if self._flushing is not None:
                self._flushing.cancel()
            self._send(data)
        elif data:
            self._held = bytes(data)
            self._flushing = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is held."""
        data, self._held = self._held, b""
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        # A connection that is lost has nobody to read it, and uvloop no handle to write to.
        if self._lingers or self._transport.is_closing():
            return
        if self._announced:
            self._announced = False
            data = data.removeprefix(STATUS_LINE_START)
        self.sent_bytes += len(data)
        self._transport.write(data)

    def announce(self) -> None:
        """Send what the next answer will begin with: the system of a client that is gone says so when it gets something."""
        self.flush()
        self._send(STATUS_LINE_START)
        self._announced = True

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not made room for."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send what is held, then close; at once if that was asked before or the client sends nothing more."""
        self.flush()
        if self._lingers or self._transport.is_closing() or not (linger_s := self._linger_s()):
            self._transport.close()
            return
        self._transport.write_eof()
        self._lingers = True
        self._transport.resume_reading()
        self._loop.call_later(linger_s, self._transport.close)

    def abort(self) -> None:
        """Close without sending what waits."""
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it was closed, by whichever side."""
        return self._lingers or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Let what the client sends wait."""
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless that is held."""
        if not self.reading_held and not self.is_closing():
            self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection, as asyncio names it."""
        return self._transport.get_extra_info(name, default)
