"""A board that all processes of a pod can see: the engine writes what admission decides by, each front what limits count.

Each place has one writer, so there is no lock across processes. A state is written between two steps of its counter: whoever
reads it while it changes reads again, or does without. A state that is a moment old, or torn all the same, does no harm: fronts
only refuse by it what the engine would refuse, and the engine decides about all other requests itself.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from service.engine.admission import Admission, AdmissionState, Budgets
from service.engine.cost import CostModel
from service.engine.places import Places
from service.engine.types import Decoding, QueueFullError

MAX_MODELS: Final = 64
"""That have a place on the board. Of others, requests are refused by the engine only."""
MAX_FRONTS: Final = 64
MAX_HOLDERS: Final = 128
"""Clients whose places are told; if there are more, the engine decides."""
MAX_SIZES: Final = 24
ATTEMPTS: Final = 3
HEARTBEAT_S: Final = 1.0
"""How often each process shows that its event loop goes on."""

_FLAGS: Final = struct.Struct("<BBxxxxxxd")
"""Ready, alive, and the engine's last heartbeat."""
_CELL: Final = struct.Struct("<QQd")
"""Connections, bytes of bodies, last heartbeat."""
_CELL_BYTES: Final = 64
_COUNTER: Final = struct.Struct("<Q")
_STATE: Final = struct.Struct("<?xxxIIIIIIId16sII")
"""Whether there is one; capacity, taken, singles, bulk, running, busy lanes, cap; first bulk's deadline and client; numbers of
holders and sizes."""
_HOLDER: Final = struct.Struct("<16sII")
_SIZE: Final = struct.Struct("<Id")
_STATE_BYTES: Final = _COUNTER.size + _STATE.size + MAX_HOLDERS * _HOLDER.size + MAX_SIZES * _SIZE.size
_CELLS_AT: Final = 64
_STATES_AT: Final = _CELLS_AT + MAX_FRONTS * _CELL_BYTES
BOARD_BYTES: Final = _STATES_AT + MAX_MODELS * _STATE_BYTES
_NOBODY: Final = bytes(16)
_NEVER: Final = float("inf")


class Board:
    """The board, for any process.

    Args:
        descriptor: Of its memory, of `BOARD_BYTES`.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, BOARD_BYTES)
        self._locks = [threading.Lock() for _ in range(MAX_MODELS)]

    # -- The engine's ---------------------------------------------------------------------------------------------------

    def tell_flags(self, ready: bool, alive: bool) -> None:
        """Say whether requests are accepted, and whether the engine's process can do its work."""
        _FLAGS.pack_into(self._memory, 0, ready, alive, time.monotonic())

    def flags(self) -> tuple[bool, bool, float]:
        """Whether requests are accepted, whether the engine is alive, and when its event loop last said so."""
        ready, alive, told_s = _FLAGS.unpack_from(self._memory, 0)
        return bool(ready), bool(alive), told_s

    def tell_state(self, place: int, read: Callable[[], AdmissionState | None]) -> None:
        """Publish the state of a model; it is read under the place's lock, so that none overtakes a later one."""
        at = _STATES_AT + place * _STATE_BYTES
        with self._locks[place]:
            state = read()
            (counter,) = _COUNTER.unpack_from(self._memory, at)
            _COUNTER.pack_into(self._memory, at, counter + 1)
            if state is None:
                _STATE.pack_into(self._memory, at + _COUNTER.size, False, *[0] * 7, 0.0, _NOBODY, 0, 0)
            else:
                self._write(at + _COUNTER.size, state)
            _COUNTER.pack_into(self._memory, at, counter + 2)

    def _write(self, at: int, state: AdmissionState) -> None:
        deadline_s, client = (_NEVER, None) if state.first_bulk is None else state.first_bulk
        counts = state.capacity, state.n_taken, state.singles, state.bulk, state.running, state.busy_lanes, state.cap
        sizes = list(state.run_times.items())[:MAX_SIZES]
        told = min(len(state.holders), MAX_HOLDERS + 1)
        _STATE.pack_into(self._memory, at, True, *counts, deadline_s, _key(client), told, len(sizes))
        at += _STATE.size
        if told <= MAX_HOLDERS:
            told_of = [_HOLDER.pack(_key(holder), *places) for holder, places in state.holders.items()]
            self._memory[at : at + told * _HOLDER.size] = b"".join(told_of)
        at += MAX_HOLDERS * _HOLDER.size
        for index, (size, duration_s) in enumerate(sizes):
            _SIZE.pack_into(self._memory, at + index * _SIZE.size, size, duration_s)

    def state(self, place: int, known: int) -> tuple[int, bytes] | None:
        """The state of a model, if it has changed since its counter was `known`, and the counter; `None`: it has not."""
        at = _STATES_AT + place * _STATE_BYTES
        for _ in range(ATTEMPTS):
            (before,) = _COUNTER.unpack_from(self._memory, at)
            if before == known:
                return None
            if before % 2 == 0:
                content = self._memory[at + _COUNTER.size : at + _STATE_BYTES]
                if _COUNTER.unpack_from(self._memory, at)[0] == before:
                    return int(before), content
        return None

    # -- The fronts' ----------------------------------------------------------------------------------------------------

    def tell_cell(self, front: int, index: int, value: int) -> None:
        """Of a front: its connections (0), or the bytes of bodies that it holds (1)."""
        _COUNTER.pack_into(self._memory, _CELLS_AT + front * _CELL_BYTES + index * _COUNTER.size, value)

    def cells(self, index: int, but: int, n_fronts: int) -> int:
        """The sum of these numbers over all fronts but one."""
        size, memory = _COUNTER.size, self._memory
        at = _CELLS_AT + index * size
        return sum([_COUNTER.unpack_from(memory, at + front * _CELL_BYTES)[0] for front in range(n_fronts) if front != but])

    def beat(self, front: int) -> None:
        """Of a front: its event loop goes on."""
        struct.pack_into("<d", self._memory, _CELLS_AT + front * _CELL_BYTES + 2 * _COUNTER.size, time.monotonic())

    def beaten_s(self, front: int) -> float:
        """When a front last did so; 0: not yet."""
        beaten_s: float = struct.unpack_from("<d", self._memory, _CELLS_AT + front * _CELL_BYTES + 2 * _COUNTER.size)[0]
        return beaten_s

    def clear_cell(self, front: int) -> None:
        """A front is gone: it has nothing any more."""
        _CELL.pack_into(self._memory, _CELLS_AT + front * _CELL_BYTES, 0, 0, 0.0)


def _key(client: Hashable) -> bytes:
    return client if isinstance(client, bytes) else _NOBODY


class Cell:
    """A `Tally` of one front.

    Args:
        board: Where it is.
        front: Whose.
        index: Which number of it.
        n_fronts: Of the pod.
    """

    def __init__(self, board: Board, front: int, index: int, n_fronts: int) -> None:
        self._board, self._front, self._index, self._n_fronts = board, front, index, n_fronts

    def tell(self, value: int) -> None:
        """The number of this process is now so large."""
        self._board.tell_cell(self._front, self._index, value)

    def others(self) -> int:
        """The sum of the others' numbers, as of a moment ago."""
        return self._board.cells(self._index, self._front, self._n_fronts)


class _Told(Places):
    """The places as the board tells of them."""

    def __init__(self) -> None:
        super().__init__(0)
        self.by_class = {False: 0, True: 0}
        self.first_bulk_s = _NEVER
        self.first_bulk_client: Hashable = None

    def held(self, bulk: bool) -> int:
        """Slots held by one class, reserved or waiting."""
        return self.by_class[bulk]

    def bulk_precedes(self, deadline_s: float, client: Hashable | None = None) -> bool:
        """Whether the most urgent bulk has an earlier deadline; with a client, also whether that bulk is its own."""
        return self.first_bulk_s < deadline_s and (client is None or client == self.first_bulk_client)

    def hold(self, holders: dict[Hashable, dict[bool, int]]) -> None:
        """Take over who holds how many."""
        self._held = holders


class PublishedAdmission(Admission):
    """Admission by the board: a front refuses by itself what the engine would refuse.

    Args:
        board: With the states.
        place: Of the model on it.
        lanes: Of its engine.
        budgets: How long a request may be predicted to wait.
        decoding: The front's own.
    """

    def __init__(self, board: Board, place: int, lanes: int, budgets: Budgets, decoding: Decoding) -> None:
        self._told = _Told()
        super().__init__(self._told, CostModel(1), lanes, budgets, decoding)
        self._board = board
        self._place = place
        self._counter = 0
        self._complete = False
        self.accepting = False
        """Whether the engine takes items."""

    def refresh(self) -> None:
        """Take over what has changed."""
        if self._place >= MAX_MODELS:
            self.accepting = True  # the engine decides
            return
        found = self._board.state(self._place, self._counter)
        if found is not None:
            self._counter, content = found
            self._adopt(content)

    def refusal_of(
        self, n_items: int, bulk: bool, deadline_s: float, now_s: float, client: Hashable = None
    ) -> QueueFullError | None:
        """Why the engine would turn away such a request; `None`: it would let it in, or only it can tell."""
        if not self._complete:
            return None
        return super().refusal_of(n_items, bulk, deadline_s, now_s, client)

    def _adopt(self, content: bytes) -> None:
        (self.accepting, capacity, n_taken, singles, bulk, running, busy, cap, bulk_s, bulk_client, n_holders, n_sizes) = (
            _STATE.unpack_from(content)
        )
        told = self._told
        told.capacity, told.n_taken = capacity, n_taken
        told.by_class = {False: singles, True: bulk}
        told.first_bulk_s, told.first_bulk_client = bulk_s, bulk_client
        self._running, self._busy_lanes = running, busy
        self._complete = n_holders <= MAX_HOLDERS
        at = _STATE.size
        if self._complete:
            holders = _HOLDER.iter_unpack(content[at : at + n_holders * _HOLDER.size])
            told.hold({client: {False: n_singles, True: n_bulk} for client, n_singles, n_bulk in holders})
        at += MAX_HOLDERS * _HOLDER.size
        self.cost.adopt(dict(_SIZE.unpack_from(content, at + index * _SIZE.size) for index in range(n_sizes)), cap)
