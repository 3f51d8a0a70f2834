"""Notices a model that hangs, fails or answers wrongly while everything around it looks well."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from service.metrics import Metrics
from service.served_model import ServedModel

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""At most: how often lanes are looked at."""
MAX_BAD_CHECKS = 2
"""In a row; a single one may be a hiccup of the device."""


class Watchdog:
    """Looks at the lanes, and has the known crop read again and again.

    Args:
        model: The one that is served now.
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

    async def watch(self) -> None:
        """Look until something is wrong for good, and say so. On the event loop, which must not wait for a model."""
        next_check_s = self._clock() + self._interval_s
        while (reason := self._complaint()) is None:
            if self._interval_s and self._check_started_s is None and self._clock() >= next_check_s:
                self._begin_check(asyncio.get_running_loop())
                next_check_s = self._clock() + self._interval_s
            await asyncio.sleep(min(LOOK_EVERY_S, self._interval_s or LOOK_EVERY_S, self._stuck_after_s))
        logger.critical("unhealthy: %s", reason)
        self._on_unhealthy(reason)

    def _complaint(self) -> str | None:
        engine = self._model().engine
        if not engine.alive:
            return "an inference lane died"
        if engine.longest_run_s > self._stuck_after_s:
            return f"an inference run has not ended within {self._stuck_after_s:g} s (PARSEQ_STUCK_AFTER_S)"
        if self._check_started_s is not None and self._clock() - self._check_started_s > self._stuck_after_s:
            return f"the known crop has not been read within {self._stuck_after_s:g} s (PARSEQ_STUCK_AFTER_S)"
        if self._bad_checks >= MAX_BAD_CHECKS:
            return f"the known crop was not read rightly {MAX_BAD_CHECKS} times in a row"
        return None

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
