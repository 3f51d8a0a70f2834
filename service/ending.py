"""How the whole service ends: signals, reasons, exit codes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from service.config import Settings
from service.core.runtime import Runtime
from service.errors import StartupError
from service.process import early_signals

EXIT_OK: Final = 0
EXIT_FORCED: Final = 1
EXIT_UNHEALTHY: Final = 4

logger = logging.getLogger(__package__)


class Reasons:
    """Why the service ends by itself.

    Args:
        end: Has it end.
    """

    def __init__(self, end: Callable[[], Any]) -> None:
        self._end = end
        self._failures: list[str] = []
        self._illnesses: list[str] = []

    def failed(self, reason: str) -> None:
        """It cannot become ready."""
        self._failures.append(reason)
        self._end()

    def ill(self, reason: str) -> None:
        """Only a new process will help."""
        self._illnesses.append(reason)
        self._end()

    def exit_code(self, settings: Settings, forced: bool) -> int:
        """The exit code, when all has ended.

        Args:
            settings: Of the service.
            forced: Whether requests in flight were dropped.

        Raises:
            StartupError: It could not become ready.
        """
        if self._failures:
            raise StartupError(f"{settings.artifact}: {self._failures[0]}")
        if self._illnesses:
            # An orderly end would wait for whatever hangs.
            print(f"parseq-serve: ended, to be restarted: {self._illnesses[0]}", file=sys.stderr, flush=True)
            os._exit(EXIT_UNHEALTHY)
        return EXIT_FORCED if forced else EXIT_OK


def handle_signals(stop: Callable[[int, FrameType | None], None], runtime: Runtime) -> None:
    """Exit with 0 on SIGTERM and SIGINT, and reload the artifacts on SIGHUP, even if it came earlier.

    uvicorn has handlers of its own while it runs. At its end it raises the signal that stopped it again, for the handlers that
    it found: the default ones would turn a clean stop into a kill.
    """
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, lambda _signal, _frame: runtime.ask_to_reload())
    if early_signals.release():
        runtime.ask_to_reload()


def log_address(listener: socket.socket) -> None:
    """Say where the service listens."""
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
