"""How many cores this process may use (the container's limit, not the host's count)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service.process.cgroup import cgroup_folders


def cpu_budget(folders: Sequence[Path] | None = None) -> int:
    """Cores this process may keep busy: the smaller of its affinity and the quotas of its control groups, at least 1.

    Args:
        folders: Of the groups; default: those of this process.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = (_quota_v2(folder) or _quota_v1(folder) for folder in (cgroup_folders() if folders is None else folders))
    quota = min((quota for quota in found if quota is not None), default=None)
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
