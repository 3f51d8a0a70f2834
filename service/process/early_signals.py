"""Signals that come before the server handles them: while modules are imported, the artifact is loaded and lanes are measured.

This module is the first that runs, so it imports little.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
RELOADING: Final = () if sys.platform == "win32" else (signal.SIGHUP,)
STDERR: Final = 2

_wakeup: int | None = None
"""While signals are held: the end of a pipe to which the interpreter writes the number of each, the moment it comes."""
_reload_wanted = False


def hold() -> None:
    """From now until `release`, SIGTERM and SIGINT end the process with exit code 0 and one line, and SIGHUP is remembered.

    They act at once. Python's own handlers would wait for whatever library the main thread is in, and opening a model may
    take long; so a thread reads the pipe. No request has been let in yet, and files are only ever moved into place whole, so
    there is nothing else to end. To be called on the main thread.
    """
    global _wakeup
    if _wakeup is not None:
        return
    numbers, _wakeup = os.pipe()
    if sys.platform != "win32":
        os.set_blocking(_wakeup, False)
    signal.set_wakeup_fd(_wakeup, warn_on_full_buffer=False)
    threading.Thread(target=_act_on, args=(numbers,), name="early-signals", daemon=True).start()
    for each in (*ENDING, *RELOADING):
        signal.signal(each, _note)


def release() -> bool:
    """Leave signals to the handlers that have been set meanwhile. To be called on the main thread.

    Returns:
        Whether SIGHUP has come since `hold`.
    """
    global _wakeup, _reload_wanted
    if _wakeup is not None:
        signal.set_wakeup_fd(-1)
        os.close(_wakeup)
        _wakeup = None
    wanted, _reload_wanted = _reload_wanted, False
    return wanted


def _note(number: int, _frame: FrameType | None) -> None:
    global _reload_wanted
    _reload_wanted = _reload_wanted or number in RELOADING


def _act_on(numbers: int) -> None:
    while came := os.read(numbers, 1):
        if came[0] in ENDING:
            line = f"parseq-serve: stopped by {signal.Signals(came[0]).name} before it could serve\n"
            with contextlib.suppress(OSError):  # standard error may be closed
                os.write(STDERR, line.encode())
            os._exit(0)
    os.close(numbers)
