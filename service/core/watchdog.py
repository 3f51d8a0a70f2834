"""Notices a model that hangs, fails or answers wrongly while everything around it works."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from service.core.metrics import Metrics
from service.core.served_model import ServedModel

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks at the lanes, at most."""
LOOKS_PER_PATIENCE: Final = 10
"""Looks in the time that a run may take, at least. Of a pause of the process, up to one interval counts as running."""
MAX_BAD_CHECKS: Final = 2
"""Failed self-checks in a row that make the server unhealthy; a single one may be a hiccup of the device."""


class Watchdog:
    """Looks at the lanes of one model, and has its known crop read at intervals.

    Only time in which this process runs counts. It may be stopped as a whole (SIGSTOP, a suspended or migrated machine) while
    the clock goes on: then the next look comes far too late, and that delay is deducted from whatever was under way.

    Args:
        model: Gives the model to watch, which a reload may replace.
        interval_s: Seconds between two readings of the known crop; 0: it is never read.
        stuck_after_s: How many seconds a run may take.
        metrics: Told the outcome of each check.
        on_unhealthy: Called once, with one line, when only a restart will help.
        clock: The engine's monotonic clock, in seconds.
    """

    def __init__(
        self,
        model: Callable[[], ServedModel],
        interval_s: float,
        stuck_after_s: float,
        metrics: Metrics,
        on_unhealthy: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._interval_s = interval_s
        self._stuck_after_s = stuck_after_s
        self._metrics = metrics
        self._on_unhealthy = on_unhealthy
        self._clock = clock
        self._bad_checks = 0
        self._check_started_s: float | None = None
        self._looked_s: float | None = None
        self._pauses: list[tuple[float, float]] = []
        """Looks that came late: (when, by how many seconds), kept as long as something from before is under way."""

    async def watch(self) -> None:
        """Look until something is wrong for good, and report that. Runs on the event loop and never waits for the model."""
        next_check_s = self._clock() + self._interval_s
        pause_s = min(LOOK_EVERY_S, self._interval_s or LOOK_EVERY_S, self._stuck_after_s / LOOKS_PER_PATIENCE)
        while (reason := self.look(pause_s)) is None:
            if self._interval_s and self._check_started_s is None and self._clock() >= next_check_s:
                self._begin_check(asyncio.get_running_loop())
                next_check_s = self._clock() + self._interval_s
            await asyncio.sleep(pause_s)
        logger.critical("unhealthy: %s", reason)
        self._on_unhealthy(reason)

    def look(self, pause_s: float) -> str | None:
        """What is wrong for good, in one line.

        Args:
            pause_s: Seconds after the last look at which this one was due.
        """
        engine = self._model().engine
        run_s = engine.longest_run_s
        # Read after the run: if the process is paused in between, the pause is noted, but is not in the run's time.
        now_s = self._clock()
        check_s = 0.0 if self._check_started_s is None else now_s - self._check_started_s
        # Late by more than an interval: less may be a busy machine, on which runs go on.
        if self._looked_s is not None and (late_s := now_s - self._looked_s - pause_s) > pause_s:
            self._pauses.append((now_s, late_s))
        self._looked_s = now_s
        begun_s = now_s - max(run_s, check_s)
        self._pauses = [(when_s, late_s) for when_s, late_s in self._pauses if when_s > begun_s]
        if not engine.alive:
            return "an inference lane died"
        if self._awake_s(run_s, now_s) > self._stuck_after_s:
            return f"an inference run has not ended within {self._stuck_after_s:g} s (PARSEQ_STUCK_AFTER_S)"
        if self._awake_s(check_s, now_s) > self._stuck_after_s:
            return f"the known crop has not been read within {self._stuck_after_s:g} s (PARSEQ_STUCK_AFTER_S)"
        if self._bad_checks >= MAX_BAD_CHECKS:
            return f"the known crop was not read rightly {MAX_BAD_CHECKS} times in a row"
        return None

    def _awake_s(self, duration_s: float, now_s: float) -> float:
        """How many of the last `duration_s` seconds the process was running."""
        return duration_s - sum(late_s for when_s, late_s in self._pauses if when_s > now_s - duration_s)

    def _begin_check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check_started_s = self._clock()
        # Not one of the loop's own threads: a run that never ends would keep the process from ending.
        threading.Thread(target=self._check, args=(loop, self._model()), name="self-check", daemon=True).start()

    def _check(self, loop: asyncio.AbstractEventLoop, model: ServedModel) -> None:
        error: Exception | None = None
        try:
            model.check()
        except Exception as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(self._checked, error)
        except RuntimeError:
            logger.debug("the server stopped during a self-check")

    def _checked(self, error: Exception | None) -> None:
        self._check_started_s = None
        self._metrics.self_checked(error is None)
        self._bad_checks = 0 if error is None else self._bad_checks + 1
        if error is not None:
            logger.error("self-check: %s: %s", type(error).__name__, error)
