"""Notices a model that hangs, fails or answers wrongly while everything around it looks well."""

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
"""At most: how often lanes are looked at."""
LOOKS_PER_PATIENCE: Final = 10
"""At least, in the time that a run may take: of a pause of the whole process, up to one interval is counted as the run's."""
MAX_BAD_CHECKS: Final = 2
"""In a row; a single one may be a hiccup of the device."""


class Watchdog:
    """Looks at the lanes of one model, and has its known crop read again and again.

    Only time in which this process runs counts. It may be stopped as a whole (SIGSTOP, a suspended or migrated machine) while
    the clock goes on: then the next look comes far too late, and by how much is taken off from whatever was under way.

    Args:
        model: The one that has this place among those that are served, whatever was reloaded.
        interval_s: Between two readings of the known crop; 0: never.
        stuck_after_s: How long a run may take.
        metrics: Told of each check.
        on_unhealthy: Told once, with one line, when nothing but a restart will help.
        clock: Monotonic, seconds; the engine's.
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
        """Looks that came late, and by how much: (when, seconds), as long as anything is under way since before."""

    async def watch(self) -> None:
        """Look until something is wrong for good, and say so. On the event loop, which must not wait for a model."""
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
            pause_s: How long after the last look this one should have come.
        """
        engine = self._model().engine
        run_s = engine.longest_run_s
        # After it: a process that is paused between the two has its pause noted, and not in the run.
        now_s = self._clock()
        check_s = 0.0 if self._check_started_s is None else now_s - self._check_started_s
        # As late as the pause is long: less is a busy machine, on which runs go on.
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
        """How much of what has lasted so long until now the process was running."""
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
