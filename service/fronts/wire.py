"""What front processes and the engine's process tell each other: records over a socket, many in one piece.

A record begins with its length and kind. Records of items have a fixed size; results carry the ids and confidences behind it;
rare matters are JSON. Nothing is pickled. Both ends run the same version, so there is no other form than the present one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

import numpy as np

from service.engine.types import Item, Outcome, QueueFullError, Refusal

logger = logging.getLogger(__name__)

HEAD: Final = struct.Struct("<IB")
ITEM: Final = struct.Struct("<IBBHIQQd16s16s")
"""Length, kind, flags or outcome, slot, model, item, count, deadline, client, trace."""
RESULT: Final = struct.Struct("<IBBBQdddHHH")
"""Length, kind, outcome, cause, item; when it was queued, seconds in queue and run; batch size, steps, candidates."""
REFUSED: Final = struct.Struct("<IBBQQdd")
"""Length, kind, refusal, first item, count, predicted wait, when to try again."""
FREED: Final = struct.Struct("<IBI")
"""Length, kind, number of slots."""
READ_BYTES: Final = 2**18

WANTS_TOP: Final = 1
HAS_ALLOWED: Final = 2
BULK: Final = 4

OUTCOMES: Final = tuple(Outcome)
REFUSALS: Final = tuple(Refusal)
NO_CLIENT: Final = bytes(16)
NO_TRACE: Final = bytes(16)


class Kind(IntEnum):
    """Of a record."""

    ADMIT = 1
    """Items of a request, with consecutive numbers, are wanted to be let in."""
    SUBMIT = 2
    """The crop of an admitted item is in a slot."""
    FOLLOW = 3
    """A further read of an item that was let in; its crop is in a slot."""
    END = 4
    """A front has ended an item."""
    DEMOTE = 5
    RESULT = 6
    REFUSED = 7
    FREED = 8
    """The engine has read so many more slots."""
    CONTROL = 9


class Cause(IntEnum):
    """Why an item failed, as far as its client is told."""

    NONE = 0
    INFERENCE = 1
    DOWN = 2


def result(item: Item, number: int, cause: Cause) -> bytes:
    """The record of an item that has ended."""
    parts, steps, candidates = [b""], 0, 0
    if item.outcome is Outcome.DONE and item.token_ids is not None and item.confidences is not None:
        steps = len(item.token_ids)
        parts += [np.asarray(item.token_ids, np.int64).tobytes(), np.asarray(item.confidences, np.float32).tobytes()]
        if item.wants_top and item.top_ids is not None and item.top_confidences is not None:
            candidates = item.top_ids.shape[-1]
            parts += [np.asarray(item.top_ids, np.int64).tobytes(), np.asarray(item.top_confidences, np.float32).tobytes()]
    length = RESULT.size + sum([len(part) for part in parts])
    outcome = OUTCOMES.index(item.outcome or Outcome.FAILED)
    times = item.enqueued_s, item.queue_s, item.inference_s
    parts[0] = RESULT.pack(length, Kind.RESULT, outcome, cause, number, *times, item.batch_size, steps, candidates)
    return b"".join(parts)


def read_result(record: memoryview, item: Item) -> tuple[Outcome, Cause]:
    """Take what a result says into the item, but for its outcome, which is returned with its cause."""
    values = RESULT.unpack_from(record)
    _, _, outcome, cause, _, enqueued_s, item.queue_s, item.inference_s, item.batch_size, steps, candidates = values
    item.enqueued_s = enqueued_s or item.enqueued_s
    if steps:
        offset = RESULT.size
        item.token_ids = np.frombuffer(record, np.int64, steps, offset)
        item.confidences = np.frombuffer(record, np.float32, steps, offset + 8 * steps)
        if candidates:
            n, offset = steps * candidates, offset + 12 * steps
            item.top_ids = np.frombuffer(record, np.int64, n, offset).reshape(steps, candidates)
            item.top_confidences = np.frombuffer(record, np.float32, n, offset + 8 * n).reshape(steps, candidates)
    return OUTCOMES[outcome], Cause(cause)


def refused(error: QueueFullError, first: int, count: int) -> bytes:
    """The record of a request that was turned away."""
    refusal = REFUSALS.index(error.refusal)
    return REFUSED.pack(REFUSED.size, Kind.REFUSED, refusal, first, count, error.wait_s, error.retry_after_s)


def freed(n_slots: int) -> bytes:
    """The record that gives slots back."""
    return FREED.pack(FREED.size, Kind.FREED, n_slots)


def control(**what: Any) -> bytes:
    """The record of a rare matter."""
    text = json.dumps(what).encode()
    return HEAD.pack(HEAD.size + len(text), Kind.CONTROL) + text


def read_control(record: memoryview) -> dict[str, Any]:
    """What `control` was given."""
    found: dict[str, Any] = json.loads(bytes(record[HEAD.size :]))
    return found


class Wire:
    """One end of a connection between two processes. What cannot be sent at once is sent later, by the event loop.

    Args:
        end: A connected stream socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._unsent: deque[bytes | memoryview] = deque()
        self._received = b""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_record: Callable[[int, memoryview], None] = lambda _kind, _record: None
        self._on_pause: Callable[[], None] = lambda: None
        self._on_closed: Callable[[], None] = lambda: None
        self.closed = False

    def first(self) -> dict[str, Any]:
        """Wait for the first record, which is a rare matter. Before `attach`.

        Raises:
            EOFError: The other end is gone.
        """
        while (record := self._next()) is None:
            if not (data := self._end.recv(READ_BYTES)):
                raise EOFError("the engine's process is gone")
            self._received += data
        return read_control(record)

    def _next(self) -> memoryview | None:
        length = HEAD.unpack_from(self._received)[0] if len(self._received) >= HEAD.size else 0
        if not length or len(self._received) < length:
            return None
        record, self._received = memoryview(self._received)[:length], self._received[length:]
        return record

    def attach(
        self, on_record: Callable[[int, memoryview], None], on_pause: Callable[[], None], on_closed: Callable[[], None]
    ) -> None:
        """Read from now on, on the running event loop.

        Args:
            on_record: Told the kind of each record, and the record.
            on_pause: Called after the records that came together.
            on_closed: Called once when the other end is gone.
        """
        self._on_record, self._on_pause, self._on_closed = on_record, on_pause, on_closed
        self._loop = asyncio.get_running_loop()
        self._end.setblocking(False)
        self._loop.add_reader(self._end.fileno(), self._readable)
        if self._received:
            self._take(b"")

    def send(self, data: bytes) -> None:
        """Send records, from any thread; they arrive in the order of these calls."""
        with self._lock:
            if self.closed:
                return
            if self._unsent:
                self._unsent.append(data)
                return
            n_sent = self._send_some(data)
            if n_sent == len(data):
                return
            self._unsent.append(memoryview(data)[n_sent:])
        if self._loop is not None:
            with suppress(RuntimeError):  # the event loop is closed: the pod was forced to end
                self._loop.call_soon_threadsafe(self._await_room)

    def close(self) -> None:
        """Read and send no more. On the event loop."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._unsent.clear()
        if self._loop is not None:
            self._loop.remove_reader(self._end.fileno())
            self._loop.remove_writer(self._end.fileno())
        self._end.close()

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._end.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return len(data)  # the other end is gone; reading tells

    def _await_room(self) -> None:
        if self._loop is not None and not self.closed:
            self._loop.add_writer(self._end.fileno(), self._writable)

    def _writable(self) -> None:
        with self._lock:
            while self._unsent:
                data = self._unsent[0]
                n_sent = self._send_some(data)
                if n_sent < len(data):
                    self._unsent[0] = memoryview(data)[n_sent:]
                    return
                self._unsent.popleft()
        if self._loop is not None and not self.closed:
            self._loop.remove_writer(self._end.fileno())

    def _readable(self) -> None:
        try:
            data = self._end.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            try:
                self._take(data)
                return
            except Exception:  # a bug; where the next record begins is in doubt
                logger.exception("a record of another process could not be taken")
        on_closed = self._on_closed
        self.close()
        on_closed()

    def _take(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        # Whole numbers of records at a time; each keeps its piece alive as long as something refers to it.
        whole, start = memoryview(received), 0
        end = len(received)
        while end - start >= HEAD.size:
            length, kind = HEAD.unpack_from(received, start)
            if end - start < length:
                break
            self._on_record(kind, whole[start : start + length])
            start += length
            if self.closed:
                return
        self._received = received[start:]
        self._on_pause()
