"""How many cores this process may use: in a container that is often fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = QUOTA) -> int:
    """Cores by affinity and by the container's quota, at least 1.

    Args:
        quota: Microseconds of a core in each period, and the period; in a container the file of its own group.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(affinity, int(allowed) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no quota: `max`, or no such file
        return affinity
