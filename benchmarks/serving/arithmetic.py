"""The benchmark's own arithmetic: percentiles, ratios, medians of slices, and the kernel's accounts of CPU time."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE_COLUMNS = (3, 4)
"""Of the line `cpu` in /proc/stat: idle, and waiting for a disk."""
BUSY_COLUMNS = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; time given to guests is in user and nice already."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; `None` of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def ratio(value: float | None, to: float | None) -> float | None:
    """`value / to`, or `None` where one of them is missing or there is nothing to divide by."""
    return None if value is None or not to else value / to


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are there; `None` when none is."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def mean(values: Sequence[float]) -> float:
    """Of what was measured before and after a slice."""
    return sum(values) / len(values)


def process_ticks(stat: str) -> tuple[int, int]:
    """The session id and the CPU time in ticks (user and system, all threads) of one `/proc/PID/stat`."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return int(fields[3]), int(fields[11]) + int(fields[12])


def busy_ticks(stat: str) -> int:
    """The CPU time of the whole machine that was not idle, in ticks, from `/proc/stat`."""
    columns = [int(field) for field in stat.split("\n", 1)[0].split()[1 : 1 + BUSY_COLUMNS]]
    return sum(ticks for index, ticks in enumerate(columns) if index not in IDLE_COLUMNS)


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU time used so far, in seconds."""

    at_s: float
    """When it was read, on the monotonic clock."""
    server_s: float
    client_s: float
    machine_s: float


def read_cpu(server_session: int, proc: Path = PROC) -> CpuReading:
    """The CPU time of the server (every process of its session), of this process, and of the machine."""
    server = 0
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                session, ticks = process_ticks((folder / "stat").read_text())
            except OSError:  # it ended between the listing and the reading
                continue
            server += ticks if session == server_session else 0
    busy = busy_ticks((proc / "stat").read_text())
    return CpuReading(time.monotonic(), server / TICKS_PER_S, time.process_time(), busy / TICKS_PER_S)


@dataclass(frozen=True, slots=True)
class CpuUse:
    """What a slice cost."""

    server_s: float
    client_share: float
    """Of all cores."""
    foreign_share: float
    """Of all cores: what neither the server nor the client used."""


def cpu_use(before: CpuReading, after: CpuReading, cores: int) -> CpuUse:
    """What happened between two readings."""
    core_seconds = (after.at_s - before.at_s) * cores
    server_s, client_s = after.server_s - before.server_s, after.client_s - before.client_s
    foreign_s = after.machine_s - before.machine_s - server_s - client_s
    # The kernel counts the server in ticks, so that what is left over may come out a little below nothing.
    return CpuUse(server_s, client_s / core_seconds, max(0.0, foreign_s / core_seconds))
