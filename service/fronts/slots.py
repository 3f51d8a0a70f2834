"""Memory that a front process and the engine's process share: crops on their way to the engine, uint8, each in a slot.

Slots are used in turn. A front writes one and sends its number; the engine copies it, in the order in which the numbers come,
and gives it back. So neither waits for the other, no lock is held across processes, and what a front that dies leaves behind
goes with its memory.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifact.allowed import Allowed
from service.engine.types import Crop

N_SLOTS: Final = 128
"""More crops than these wait in the front until slots are given back."""
MIN_SLOT_BYTES: Final = 2**20
"""Only what is written of a slot takes memory, so models that a reload brings may have larger pictures."""


def slot_bytes_for(needed: int) -> int:
    """The size of a slot for models that need so many bytes."""
    return max(MIN_SLOT_BYTES, 1 << max(0, needed - 1).bit_length())


def new_memory(name: str, n_bytes: int) -> int:
    """A file of so many bytes that is only in memory; its descriptor, which is not inherited."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(descriptor, n_bytes)
    return descriptor


class Slots:
    """The slots of one front, seen from either side.

    Args:
        descriptor: Of the memory; it may be closed afterwards.
        slot_bytes: Of a slot.
    """

    def __init__(self, descriptor: int, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self._memory = mmap.mmap(descriptor, N_SLOTS * slot_bytes)
        self._bytes = np.frombuffer(self._memory, np.uint8).reshape(N_SLOTS, slot_bytes)
        self._n_written = 0
        self._n_freed = 0

    def write(self, crop: Crop, allowed: Allowed | None) -> int | None:
        """Put a crop into the next slot, and behind it what may be read; its number, or `None`: all are in use."""
        if self._n_written - self._n_freed >= N_SLOTS:
            return None
        slot = self._n_written % N_SLOTS
        self._n_written += 1
        row, n_bytes = self._bytes[slot], crop.size
        row[:n_bytes] = crop.reshape(-1)
        if allowed is not None:
            row[n_bytes : n_bytes + len(allowed)] = allowed
        return slot

    def free(self, n_slots: int) -> None:
        """The other side has read so many more."""
        self._n_freed += n_slots

    def read(self, slot: int, shape: tuple[int, ...], n_allowed: int) -> tuple[Crop, Allowed | None]:
        """A copy of the crop in a slot, and of what may be read: bool `[n_allowed]`; `None` for 0."""
        n_bytes = int(np.prod(shape))
        row: NDArray[np.uint8] = self._bytes[slot]
        allowed = row[n_bytes : n_bytes + n_allowed].astype(bool) if n_allowed else None
        return row[:n_bytes].reshape(shape).copy(), allowed

    def close(self) -> None:
        """Give the memory back."""
        del self._bytes
        self._memory.close()
