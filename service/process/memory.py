"""How much memory this process may use: the container's limit, not the host's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from service.process.cpu import CGROUP_ROOT

LIMIT_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Of cgroup version 2, then 1."""
NO_LIMIT_BYTES: Final = 2**60
"""Version 1 writes a number above this for none; no machine has as much."""


def memory_limit_bytes(cgroup_root: Path = CGROUP_ROOT) -> float:
    """The cgroup's limit, beyond which the process is killed; infinity when there is none."""
    for name in LIMIT_FILES:
        try:
            limit_bytes = int((cgroup_root / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit_bytes < NO_LIMIT_BYTES:
            return limit_bytes
    return math.inf
