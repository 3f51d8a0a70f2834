"""Replicas that are started again when they end, as Kubernetes or compose would, and the project's gateway before them."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deployment import tools
from tests.integration.server import PATIENCE_S, ROOT, ServerProcess, running

GATEWAY = ROOT / "docker" / "gateway" / "nginx.conf"
NAMES = ("service", "replica")
"""In that file."""

Address = tuple[str, int]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Replica:
    """A server at one port. `supervise` starts it again whenever it ends."""

    def __init__(self, artifact: Path, folder: Path, name: str) -> None:
        self.address: Address = ("127.0.0.1", free_port())
        self.exit_codes: list[int] = []
        self._artifact = artifact
        self._folder = folder
        self._name = name
        self._stack = ExitStack()
        self._server = self._start()
        self._started_again = asyncio.Event()

    def _start(self) -> ServerProcess:
        log = self._folder / f"{self._name}-{len(self.exit_codes)}.log"
        return self._stack.enter_context(running(self._artifact, log, self.address[1]))

    async def supervise(self) -> None:
        while True:
            # A thread that waits for the process could not be cancelled, so this asks again and again.
            while (code := self._server.process.poll()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            self.exit_codes.append(code)
            self._server = await asyncio.to_thread(self._start)
            self._started_again.set()

    async def restart(self, how: signal.Signals) -> float:
        """End it and wait until its successor is ready; seconds between the two."""
        self._started_again.clear()
        started_s = time.monotonic()
        self._server.process.send_signal(how)
        async with asyncio.timeout(PATIENCE_S):
            await self._started_again.wait()
        return time.monotonic() - started_s

    def done(self) -> float:
        """Crops read since it was started."""
        return self._server.metric('parseq_crops_total{outcome="done"}')

    def close(self) -> None:
        self._stack.close()


@contextmanager
def gateway(folder: Path, replicas: tuple[Address, Address]) -> Iterator[Address]:
    """nginx with the project's configuration, but for the addresses."""
    folder.mkdir()
    folder.chmod(0o777)  # its workers are another user when root starts it
    port = free_port()
    text = GATEWAY.read_text()
    changes = {"listen 8080;": f"listen 127.0.0.1:{port};", "/tmp/": f"{folder}/", "/dev/stdout": f"{folder}/access.log"}
    # All clients of a test are one address.
    changes |= {"rate=1000r/s": "rate=100000r/s", "limit_conn of_client 100;": "limit_conn of_client 900;"}
    changes |= {f"server {name}:8000 ": f"server {host}:{at} " for name, (host, at) in zip(NAMES, replicas, strict=True)}
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    config = folder / "nginx.conf"
    config.write_text(text)
    command = [*tools.command("nginx"), "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        _wait_until_it_listens(port, process, folder / "stderr")
        yield "127.0.0.1", port
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(PATIENCE_S)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())
