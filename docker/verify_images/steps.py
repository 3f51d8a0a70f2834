"""Saying what is done and what was found; running programs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "verify-images"
"""Bases, built images and logs; ignored by git."""
COMMAND_TIMEOUT_S = 1800
PATIENCE_S = 60.0
PAUSE_S = 0.05


class CheckError(Exception):
    """Something is not as it must be; the message says what."""


def heading(title: str) -> None:
    """A new part of the verification."""
    print(f"\n{title}", flush=True)


def passed(text: str) -> None:
    """One thing that was found to be right."""
    print(f"  ok  {text}", flush=True)


def note(text: str) -> None:
    """Something to know that is neither right nor wrong."""
    print(f"      {text}", flush=True)


def check(right: bool, text: str, found: object = "") -> None:
    """Say that `text` is so.

    Raises:
        CheckError: it is not.
    """
    if not right:
        raise CheckError(f"{text}: it is not so{f' ({found})' if found != '' else ''}")
    passed(text)


def run(words: Sequence[str | Path], log: Path | None = None) -> str:
    """Run a program that must end well; its standard output, or nothing when all it says goes to `log`.

    Raises:
        CheckError: it failed; the message ends with the last it said.
    """
    ended = attempt(words, log)
    if ended.returncode != 0:
        told = log.read_text(errors="replace") if log else ended.stdout + ended.stderr
        tail = "\n".join(told.strip().splitlines()[-15:])
        raise CheckError(f"{Path(words[0]).name} ended with exit code {ended.returncode}:\n{tail}")
    return "" if log else ended.stdout


def attempt(words: Sequence[str | Path], log: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that may fail."""
    if log is None:
        return subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, cwd=ROOT)
    with log.open("w") as file:
        return subprocess.run(words, stdout=file, stderr=file, text=True, timeout=COMMAND_TIMEOUT_S, cwd=ROOT)


def wait_until(what: str, holds: Callable[[], bool], alive: Callable[[], bool] = lambda: True) -> None:
    """Ask until it holds.

    Raises:
        CheckError: it did not for a minute, or never will since whatever makes it so has died.
    """
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        if not alive():
            raise CheckError(f"{what}: the process ended before")
        if time.monotonic() > end_s:
            raise CheckError(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(PAUSE_S)
