"""The resident memory of a process, looked at now and then: does it grow?"""

from __future__ import annotations

import os

import numpy as np

from tests.reliability.memory import MIB, resident_bytes


class Memory:
    """Looks at one process.

    Args:
        pid: Of the process; none: this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        self._looks: list[tuple[int, int]] = []
        self._peak_bytes = 0

    def look(self, done: int) -> None:
        """Note the memory after so many pieces of work."""
        self._looks.append((done, resident_bytes(self._pid)))
        self._peak_bytes = resident_bytes(self._pid, "VmHWM")

    def slope_bytes(self) -> float:
        """Growth for each piece of work in the second half, when all that is kept for ever has been loaded."""
        half = np.array(self._looks[len(self._looks) // 2 :], float)
        return float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) if len(half) > 2 else 0.0

    def rise_mib(self) -> float:
        """How far memory has ever risen above where it was first looked at."""
        return (self._peak_bytes - self._looks[0][1]) / MIB if self._looks else 0.0

    def __str__(self) -> str:
        if not self._looks:
            return "memory not looked at"
        first, last = self._looks[len(self._looks) // 2][1], self._looks[-1][1]
        growth = f"RSS {first / MIB:.0f} -> {last / MIB:.0f} MiB, slope {self.slope_bytes():+.0f} bytes a file"
        return f"{growth}, at most {self.rise_mib():.0f} MiB above the first"
