"""How much memory this process may use: the container's limit, not the host's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from service.process.cpu import CGROUP_ROOT

LIMIT_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Where cgroup version 2, then version 1, has the limit."""
NO_LIMIT_BYTES: Final = 2**60
"""Where there is no limit, version 1 has a number above this; no machine has as much memory."""


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
