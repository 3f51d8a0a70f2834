"""The service as a process of its own, with its own session id, so that all its CPU time can be counted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.client import Address

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
ENV_PREFIX = "PARSEQ_"


@dataclass(frozen=True, slots=True)
class Server:
    """A service that is ready."""

    address: Address
    session_id: int
    """Of all its processes."""
    description: str
    """What it says of itself when it is ready: model, topology."""


@contextmanager
def running(artifact: Path | str, log: Path, settings: Mapping[str, str], module: str = "service") -> Iterator[Server]:
    """Serve an artifact, or what else `PARSEQ_ARTIFACT` may say, with the defaults, but for `settings`.

    Names of settings are those of docs/configuration.md; it is run as `module`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    environment |= {ENV_PREFIX + name.upper(): value for name, value in settings.items()}
    command = [sys.executable, "-m", module, "--port", "0", "--artifact", str(artifact)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr, start_new_session=True)
    try:
        address, description = _wait_ready(process, log)
        yield Server(address, process.pid, description)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> tuple[Address, str]:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        text = log.read_text(encoding="utf-8")
        if process.poll() is not None:
            break
        listening, ready = re.search(r"listening on http://(\S+):(\d+)", text), re.search(r"ready after.*?: (.*)", text)
        if listening and ready:
            return (listening[1], int(listening[2])), ready[1]
        time.sleep(0.05)
    raise SystemExit(f"the service did not become ready:\n{text}")
