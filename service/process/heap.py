"""Has the C library give memory that large requests took back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""A parameter of `mallopt`, from malloc.h."""
LARGE_BYTES: Final = 2**22
KEPT_BYTES: Final = 2 * LARGE_BYTES
"""What may stay free at the end of a heap; the ratio is glibc's own. If only the other threshold is set, glibc gives back all
but 128 KiB after every run of the model and fetches it again for the next: the bundled model then took 4.2 ms for a crop
instead of 3.5."""


def return_large_blocks() -> bool:
    """Have the C library give blocks of 4 MiB and more back as soon as they are freed; returns whether it will.

    Left to itself, glibc raises this threshold to 32 MiB once such a block was freed, and keeps what lies below it: after a few
    large bodies or images tens of megabytes in each thread's heap, for ever.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
    except (OSError, AttributeError):  # another C library than glibc, which does so by itself
        return False
