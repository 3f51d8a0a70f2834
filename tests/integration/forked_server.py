"""Servers without their imports, which take most of a start: each is forked from a process that has imported them.

`python -m tests.integration.forked_server` is that process.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.entry import serve

ROOT = Path(__file__).parents[2]
POLL_EVERY_S = 0.02


class ForkedServer:
    """What tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: Path) -> None:
        self.pid = int(_parent().ask([list(arguments), dict(environment), str(stderr)]))
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, as long as there is none None."""
        if self._code is None:
            answer = _parent().ask(self.pid)
            self._code = int(answer) if answer else None
        return self._code

    def wait(self, timeout: float) -> int:
        """The exit code, once there is one.

        Raises:
            TimeoutExpired: There is none after so many seconds.
        """
        ends_s = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > ends_s:
                raise subprocess.TimeoutExpired("service", timeout)
            time.sleep(POLL_EVERY_S)
        return code

    def send_signal(self, how: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, how)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that has imported what servers need; it forks them, and knows how they ended."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._one_at_a_time = threading.Lock()
        atexit.register(self.close)

    def ask(self, what: object) -> str:
        """Start a server with these arguments, environment and file for stderr, or look after one with this number."""
        assert self._process.stdin
        assert self._process.stdout
        with self._one_at_a_time:
            print(json.dumps(what), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        assert answer, "whoever starts the servers has ended"
        return answer.strip()

    def close(self) -> None:
        with self._process:
            self._process.kill()


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def _fork_servers() -> None:
    import service.__main__  # noqa: F401 - with all that it needs

    # Else each one looks through all that is imported, and copies it.
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            ended, status = os.waitpid(asked, os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if ended else "", flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            _become_the_server(*asked)
            return


def _become_the_server(arguments: list[str], environment: dict[str, str], stderr: str) -> None:
    """In a process that was just forked: from here on as the command `parseq-serve`."""
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, os.devnull, os.O_WRONLY), (2, stderr, os.O_WRONLY)):
        os.dup2(os.open(name, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    serve()


if __name__ == "__main__":
    _fork_servers()
