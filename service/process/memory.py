"""How much memory this process may use: the container's limit, not the host's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.process.cgroup import cgroup_folders

LIMIT_FILES: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Where cgroup version 2, then version 1, has the limit."""
NO_LIMIT_BYTES: Final = 2**60
"""Where there is no limit, version 1 has a number above this; no machine has as much memory."""


def memory_limit_bytes(folders: Sequence[Path] | None = None) -> float:
    """The smallest limit of the control groups, beyond which the process is killed; infinity when there is none.

    Args:
        folders: Of the groups; default: those of this process.
    """
    limits = (_limit_bytes(folder) for folder in (cgroup_folders() if folders is None else folders))
    return min((limit for limit in limits if limit < NO_LIMIT_BYTES), default=math.inf)


def _limit_bytes(folder: Path) -> float:
    for name in LIMIT_FILES:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return math.inf
