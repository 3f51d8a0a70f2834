"""How many cores this process may use (the container's limit, not the host's count), and what kind they are."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def cpu_budget(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Cores this process may keep busy: the smaller of its affinity and its cgroup quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup_root) or _quota_v1(cgroup_root)
    # Rounded down: a thread more than the quota is throttled, which costs more than the core it would have used.
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def lower_priority(niceness: int) -> None:
    """Let the calling thread give way to others when cores are short, as `nice` does for a process; it needs no privilege.

    Only Linux has priorities of threads; elsewhere nothing happens.
    """
    if niceness and sys.platform == "linux":
        thread_id = threading.get_native_id()
        # A sandbox may forbid it; then nothing is lost but a little grace under load.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + niceness)


def _quota_v2(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(root: Path) -> float | None:
    try:
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
