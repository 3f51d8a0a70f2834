"""Signals to a process that does not serve yet: while it imports, measures, and warms up."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.server import PATIENCE_S, ROOT, command, environment
from tests.toy_artifact import write_artifact

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is seen in /proc which signals are taken")

SCRIPT = "import sys; from service.entry import serve; sys.exit(serve())"
HOLDING = """
import hashlib, sys
from service.process import early_signals
early_signals.hold()
print("held", file=sys.stderr, flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # for minutes, no Python runs on this thread
"""


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        process = subprocess.Popen(arguments, cwd=ROOT, env=environment(tune=1), stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.001)


def takes_signals(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has handlers of its own for SIGTERM and SIGHUP: the first that it does."""
    found = re.search(r"^SigCgt:\s+([0-9a-f]+)$", Path(f"/proc/{process.pid}/status").read_text(), re.M)
    wanted = 1 << signal.SIGTERM - 1 | 1 << signal.SIGHUP - 1
    return found is not None and int(found[1], 16) & wanted == wanted


@pytest.fixture
def artifact(tmp_path: Path) -> str:
    return str(write_artifact(tmp_path / "toy.onnx"))


@pytest.mark.parametrize(("number", "script"), [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)])
def test_it_ends_well_from_its_first_moment_on(tmp_path: Path, artifact: str, number: int, script: bool) -> None:
    arguments = ["--port", "0", "--artifact", artifact]
    log = tmp_path / "log"
    with started([sys.executable, "-c", SCRIPT, *arguments] if script else command(*arguments), log) as process:
        wait_until(lambda: takes_signals(process), process)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
    assert log.read_text() == f"parseq-serve: stopped by {signal.Signals(number).name} before it could serve\n"


@pytest.mark.parametrize("milliseconds", [150, 600, 1100, 1600])
def test_it_ends_well_at_any_moment_of_its_start(tmp_path: Path, artifact: str, milliseconds: int) -> None:
    number = signal.SIGINT if milliseconds % 200 else signal.SIGTERM
    log = tmp_path / "log"
    with started(command("--port", "0", "--artifact", artifact), log) as process:
        wait_until(lambda: takes_signals(process), process)
        time.sleep(milliseconds / 1000)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert re.search(r"before it could serve\n\Z|INFO service.core.runtime: stopped\n\Z", log.read_text()), log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_it_has_just_begun_to_listen(tmp_path: Path, artifact: str, number: int) -> None:
    log = tmp_path / "log"
    with started(command("--port", "0", "--artifact", artifact), log) as process:
        wait_until(lambda: "listening on" in log.read_text(), process)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def test_it_does_not_wait_for_what_the_main_thread_is_in(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started([sys.executable, "-c", HOLDING], log) as process:
        wait_until(lambda: "held" in log.read_text(), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_hangup_during_the_start_is_a_reload_when_it_is_ready(tmp_path: Path, artifact: str) -> None:
    log = tmp_path / "log"
    with started(command("--port", "0", "--artifact", artifact), log) as process:
        wait_until(lambda: takes_signals(process), process)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded: " in log.read_text(), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert log.read_text().index("ready after") < log.read_text().index("reloaded: ")
