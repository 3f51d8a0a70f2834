"""The engine as a front process sees it: the calls of an engine become records, and results become settled items again."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Final

from service.engine.types import (
    Crop,
    EngineDownError,
    InferenceError,
    Item,
    Observer,
    Outcome,
    QueueFullError,
    Stage,
)
from service.fronts import wire
from service.fronts.board import PublishedAdmission
from service.fronts.slots import Slots
from service.fronts.wire import Cause, Kind, Wire

KEPT_CLIENTS: Final = 4096
TRACE_ID: Final = "trace_id"

Unsent = tuple["FrontEngine", Kind, Item, Crop]


@lru_cache(KEPT_CLIENTS)
def client_key(client: Hashable) -> bytes:
    """Sixteen bytes that tell a client from others, in all processes; zeros for nobody in particular."""
    if client is None:
        return wire.NO_CLIENT
    text = client if isinstance(client, bytes) else str(client).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=len(wire.NO_CLIENT)).digest()


class Sender:
    """All items of this front that are in the engine, of all models. Records of one turn of the event loop go in one piece.

    Args:
        end: To the engine's process.
        slots: Of this front.
    """

    def __init__(self, end: Wire, slots: Slots) -> None:
        self._end = end
        self._slots = slots
        self.lock = threading.Lock()
        """Held wherever an item changes: decode threads submit and fail, the event loop does all else."""
        self.items: dict[int, Item] = {}
        """By number, which is the `arrival` of an item."""
        self._n_items = 0
        self._records: list[bytes] = []
        self._overflow: deque[Unsent] = deque()
        """Crops that wait for a slot."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    def start(self) -> None:
        """On the event loop, which delivers items from now on."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()

    def enter(self, items: Sequence[Item]) -> int:
        """Number new items, in a row; the first number. Under the lock."""
        first = self._n_items + 1
        for item in items:
            self._n_items += 1
            item.arrival = self._n_items
            self.items[item.arrival] = item
        return first

    def post(self, record: bytes) -> None:
        """Send a record soon. Under the lock."""
        self._records.append(record)
        if len(self._records) == 1 and self._loop is not None:
            if threading.get_ident() == self._loop_thread:
                self._loop.call_soon(self._flush)
            else:
                self._loop.call_soon_threadsafe(self._flush)

    def post_crop(self, engine: FrontEngine, kind: Kind, item: Item, crop: Crop) -> None:
        """Send an item with its crop, as soon as there is a slot. Under the lock."""
        slot = None if self._overflow else self._slots.write(crop, item.allowed)
        if slot is None:
            self._overflow.append((engine, kind, item, crop))
        else:
            self.post(engine.record(kind, item, slot))

    def freed(self, n_slots: int) -> None:
        """The engine has read so many slots."""
        with self.lock:
            self._slots.free(n_slots)
            while self._overflow:
                engine, kind, item, crop = self._overflow[0]
                if item.outcome is None:
                    slot = self._slots.write(crop, item.allowed)
                    if slot is None:
                        return
                    self.post(engine.record(kind, item, slot))
                self._overflow.popleft()

    def deliver(self, item: Item) -> None:
        """Hand out an item that was settled here, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(item.on_settled, item)

    def settled(self, record: memoryview) -> None:
        """The engine has ended an item. On the event loop."""
        number = wire.RESULT.unpack_from(record)[4]
        with self.lock:
            item = self.items.pop(number, None)
            if item is None or item.outcome is not None:
                return
            item.outcome, cause = wire.read_result(record, item)
            item.stage = Stage.ENDED
            if cause is Cause.DOWN:
                item.error = EngineDownError("the engine stopped")
            elif cause is Cause.INFERENCE:
                item.error = InferenceError("the session failed")
        item.on_settled(item)

    def refused(self, record: memoryview) -> None:
        """The engine has turned away a request that seemed to have room. On the event loop."""
        _, _, refusal, first, count, wait_s, retry_after_s = wire.REFUSED.unpack_from(record)
        with self.lock:
            items = [item for number in range(first, first + count) if (item := self.items.pop(number, None)) is not None]
            ended = [item for item in items if item.outcome is None]
            for item in ended:
                item.outcome, item.stage = Outcome.FAILED, Stage.ENDED
                item.error = QueueFullError(wire.REFUSALS[refusal], wait_s, retry_after_s)
        for item in ended:
            item.on_settled(item)

    def _flush(self) -> None:
        with self.lock:
            records, self._records = self._records, []
        self._end.send(b"".join(records))


class FrontEngine:
    """The engine of one model, in the engine's process. Admission is decided twice: here by the board, and there.

    Args:
        number: Of the model, in records.
        sender: Of this front.
        admission: By the board.
        observer: Counts what is refused here.
        clock: Monotonic, and the same in all processes.
    """

    def __init__(
        self,
        number: int,
        sender: Sender,
        admission: PublishedAdmission,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number = number
        self._sender = sender
        self._admission = admission
        self._observer = observer
        self._clock = clock

    def admit(self, items: Sequence[Item]) -> None:
        """Let in all items of a request, or none, as far as the board tells; else they end as soon as the engine has decided.

        Raises:
            QueueFullError: There is no room for all of them, or they would wait too long.
            EngineDownError: The engine takes no items.
        """
        now_s, first, admission = self._clock(), items[0], self._admission
        admission.refresh()
        if not admission.accepting:
            raise EngineDownError("the engine takes no items")
        client = client_key(first.client)
        refusal = admission.refusal_of(len(items), first.bulk, first.deadline_s, now_s, client)
        if refusal is not None:
            self._observer.refused(len(items), refusal.refusal)
            raise refusal
        sender = self._sender
        with sender.lock:
            number = sender.enter(items)
            for item in items:
                item.stage, item.admitted_s = Stage.DECODING, now_s
            sender.post(self._pack(Kind.ADMIT, wire.BULK * first.bulk, 0, number, len(items), first))

    def refusal_of(self, n_items: int, bulk: bool, timeout_s: float, client: Hashable = None) -> QueueFullError | None:
        """Why `admit` would turn away such a request now; `None` where only `admit`, or the engine, can tell."""
        self._admission.refresh()
        if not self._admission.accepting:
            return None
        now_s = self._clock()
        return self._admission.refusal_of(n_items, bulk, now_s + timeout_s, now_s, client_key(client))

    def demote(self, item: Item) -> None:
        """The image of an admitted single crop will take long to decode."""
        with self._sender.lock:
            if item.outcome is None:
                self._sender.post(self._pack(Kind.DEMOTE, 0, 0, item.arrival, 1, item))

    def submit(self, item: Item, crop: Crop) -> None:
        """Queue the decoded crop of an admitted item."""
        with self._sender.lock:
            if item.outcome is None:
                item.stage, item.enqueued_s = Stage.WAITING, self._clock()
                self._sender.post_crop(self, Kind.SUBMIT, item, crop)

    def follow(self, leader: Item, followers: Sequence[Item]) -> None:
        """Queue further reads of an admitted item, with their crops; where the item has ended badly, they end too."""
        sender = self._sender
        with sender.lock:
            leader.followers = (*leader.followers, *followers)
            if leader.outcome in (None, Outcome.DONE):
                sender.enter(followers)
                for item in followers:
                    item.stage, item.admitted_s = Stage.WAITING, self._clock()
                    item.enqueued_s = item.admitted_s
                    sender.post_crop(self, Kind.FOLLOW, item, item.pixels)
                return
        for item in followers:
            self.fail(item, EngineDownError("the crop has ended"))

    def fail(self, item: Item, error: Exception) -> None:
        """End an admitted item that will never be submitted, because its image cannot be decoded."""
        if self._end([item], Outcome.FAILED, error):
            self._sender.deliver(item)

    def abandon(self, items: Sequence[Item], outcome: Outcome) -> None:
        """End those of `items` that have not ended, and their followers, since nobody waits for them."""
        self._end([*items, *(follower for item in items for follower in item.followers)], outcome, None)

    def record(self, kind: Kind, item: Item, slot: int) -> bytes:
        """The record of an item whose crop is in a slot."""
        flags = wire.WANTS_TOP * item.wants_top + wire.HAS_ALLOWED * (item.allowed is not None) + wire.BULK * item.bulk
        return self._pack(kind, flags, slot, item.arrival, 1, item)

    def _pack(self, kind: Kind, flags: int, slot: int, number: int, count: int, item: Item) -> bytes:
        trace = wire.NO_TRACE if item.exemplar is None else bytes.fromhex(item.exemplar[TRACE_ID])
        values: tuple[Any, ...] = slot, self._number, number, count, item.deadline_s, client_key(item.client), trace
        return wire.ITEM.pack(wire.ITEM.size, kind, flags, *values)

    def _end(self, items: Sequence[Item], outcome: Outcome, error: Exception | None) -> bool:
        """End items, here and in the engine; returns whether any had not ended before."""
        sender, ended = self._sender, False
        with sender.lock:
            for item in items:
                if item.outcome is None:
                    item.outcome, item.error, item.stage, ended = outcome, error, Stage.ENDED, True
                    if sender.items.pop(item.arrival, None) is not None:
                        sender.post(self._pack(Kind.END, wire.OUTCOMES.index(outcome), 0, item.arrival, 1, item))
        return ended
