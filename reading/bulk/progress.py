"""How far a run is, on standard error: on a terminal a line that changes, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

TERMINAL_EVERY_S: Final = 0.5
LOG_EVERY_S: Final = 30.0


class Progress:
    """Counts rows and tells of them.

    Args:
        total: Rows of the run.
        finished: Rows that were finished before.
        stream: Where it is written.
        clock: Seconds, of any beginning.
    """

    def __init__(
        self, total: int, finished: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.errors = 0
        self._finished = finished
        self._read = 0
        self._unmeasured = 0
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._start_s: float | None = None
        self._told_s = clock()

    def advance(self, rows: int) -> None:
        """Rows more were read; fewer than none: what was read of a part is lost."""
        self._read += rows
        if self._start_s is None:
            # How long the first ones took is not known: the workers had to start.
            self._start_s, self._unmeasured = self._clock(), rows

    @property
    def per_s(self) -> float:
        """Rows read in a second, on average over this run."""
        passed_s = 0.0 if self._start_s is None else self._clock() - self._start_s
        return max(0, self._read - self._unmeasured) / passed_s if passed_s > 0 else 0.0

    def line(self) -> str:
        """How far it is."""
        reached = self._finished + self._read
        share = 100 * reached / self.total if self.total else 100.0
        left = f", {duration((self.total - reached) / self.per_s)} left" if self.per_s > 0 else ""
        errors = f", {self.errors:,} errors" if self.errors else ""
        return f"{reached:,} of {self.total:,} crops ({share:.1f} %), {self.per_s:.0f} crops/s{left}{errors}"

    def tell(self) -> None:
        """Write the line, if it is time."""
        now_s = self._clock()
        if now_s - self._told_s >= (TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S):
            self._told_s = now_s
            self._stream.write(f"\r\x1b[K{self.line()}" if self._terminal else f"{self.line()}\n")
            self._stream.flush()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Such as `2 h 05 min`, `3 min 20 s` or `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
