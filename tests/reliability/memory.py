"""Memory of a process over time, and how steeply it grows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
SECONDS_PER_HOUR = 3600


def resident_bytes(pid: int, field: str = "VmRSS") -> int:
    """What a process holds in memory now, or with `VmHWM` the most it ever did."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return 1024 * int(found[1])


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through memory over time, by least squares."""

    mib_per_hour: float
    error_mib_per_hour: float
    """Standard error of the slope, as if the samples were independent."""
    rise_mib: float
    """From the first to the last moment, along the line."""


def slope_of(samples: Sequence[tuple[float, int]]) -> Slope:
    """Of (seconds, bytes)."""
    times_s = [at_s for at_s, _ in samples]
    values = [value / MIB for _, value in samples]
    line = statistics.linear_regression(times_s, values)
    residues = [value - line.intercept - line.slope * at_s for at_s, value in zip(times_s, values, strict=True)]
    spread = statistics.pvariance(times_s) * len(times_s)
    error = (sum(residue**2 for residue in residues) / (len(samples) - 2) / spread) ** 0.5
    rise_mib = line.slope * (times_s[-1] - times_s[0])
    return Slope(line.slope * SECONDS_PER_HOUR, error * SECONDS_PER_HOUR, rise_mib)
