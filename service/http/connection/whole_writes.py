"""A transport that sends the head of an answer together with its body, and hangs up so that the answer arrives.

uvicorn writes head and body one after the other, and uvloop sends at once what is written. A server killed in between would
leave the client with half an answer, and a gateway cannot ask another replica then: an answer must leave whole or not at all.

If a connection is closed while the client still sends, the operating system resets it, and the answer may be lost. So it is
closed for writing first, and what comes is thrown away for a while (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

STATUS_LINE_START: Final = b"HTTP/1.1 "
"""Every answer begins with it, `100 Continue` too."""


class WholeAnswers(asyncio.Transport):
    """Holds back what is written until more is written, the connection is closed or the event loop has gone round once.

    Args:
        transport: The transport to write to.
        loop: Its event loop.
        linger_s: Gives the seconds to wait for more from the client when the connection is closed; 0: it sends nothing more.
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
        """Whether reading stays paused even if `resume_reading` is called."""
        self.sent_bytes = 0
        """Bytes written to the transport so far."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Hold `data` back, or send it together with what is held; nothing is sent to a client that is gone."""
        if self._held:
            # Not held back again: so little waits here, and the transport can signal that its buffer is full.
            data, self._held = self._held + data, b""
            if self._flushing is not None:
                self._flushing.cancel()
            self._send(data)
        elif data:
            self._held = bytes(data)
            self._flushing = self._loop.call_soon(self.flush)

    def write_now(self, data: bytes) -> None:
        """Send a whole answer, after what is held back."""
        self.flush()
        self._send(data)

    def flush(self) -> None:
        """Send what is held back."""
        data, self._held = self._held, b""
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        # A lost connection has no reader, and uvloop no handle to write to.
        if self._lingers or self._transport.is_closing():
            return
        if self._announced:
            self._announced = False
            data = data.removeprefix(STATUS_LINE_START)
        self.sent_bytes += len(data)
        self._transport.write(data)

    def announce(self) -> None:
        """Send the beginning of the next answer: when it arrives, the system of a client that is gone reports that."""
        self.flush()
        self._send(STATUS_LINE_START)
        self._announced = True

    def get_write_buffer_size(self) -> int:
        """Bytes that wait since the client has no room for them."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send what is held back, then close: after `linger_s()` if the client may still send, or at once on a second call."""
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
        """Whether either side has closed the connection."""
        return self._lingers or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stop reading what the client sends."""
        if not self.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless `reading_held`."""
        if not self.reading_held and not self.is_closing():
            self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Information about the connection, by asyncio's names."""
        return self._transport.get_extra_info(name, default)
