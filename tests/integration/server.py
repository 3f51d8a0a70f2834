"""A real server process for tests."""

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

import httpx

from tests.integration.forked_server import ForkedServer

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120


@dataclass
class Form:
    """Of the servers that tests start."""

    http_workers: int = int(os.environ.get("TEST_HTTP_WORKERS", "1"))
    """More than 1: that many processes in front of the one with the models."""


form = Form()


def command(*arguments: str, module: str = "service") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment(**settings: object) -> dict[str, str]:
    """The environment without any `PARSEQ_` variable but those given, in lower case and without the prefix.

    Nothing is tuned unless a test asks for it: each start would pay for it, and leave a file beside the artifact.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARSEQ_")}
    given = {"tune": 0, "http_workers": form.http_workers} | settings
    if given.get("grpc_port"):
        given["http_workers"] = 1
    return inherited | {f"PARSEQ_{name.upper()}": str(value) for name, value in given.items()}


@dataclass
class ServerProcess:
    process: subprocess.Popen[bytes] | ForkedServer
    log: Path
    url: str

    def scrape(self) -> str:
        """All metrics as they are now."""
        return httpx.get(f"{self.url}/metrics").text

    def metric(self, sample: str, scrape: str | None = None) -> float:
        """The value of a sample such as `name{label="value"}`: all that have these labels, whatever their model, together.

        Args:
            sample: Its name, and some of its labels.
            scrape: Where it is looked for; by default in what there is now.
        """
        name, _, labels = sample.rstrip("}").partition("{")
        wanted = set(labels.split(",")) - {""}
        text = self.scrape() if scrape is None else scrape
        found = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", text, re.M)
        given = [({label for label in of.split(",") if not label.startswith("model=")}, value) for of, value in found]
        return sum(float(value) for of, value in given if of - {""} == wanted)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    artifact: Path,
    log: Path,
    port: int = 0,
    *,
    module: str = "service",
    variables: Mapping[str, str] | None = None,
    forked: bool = False,
    **settings: object,
) -> Iterator[ServerProcess]:
    """A server that is ready, at a free port unless one is given; killed at the end if the test did not stop it.

    Args:
        artifact: To serve.
        log: Takes what it writes to stderr.
        port: To listen on.
        module: To run instead of the service itself.
        variables: Of the environment, besides the settings.
        forked: From a process that has imported what it needs: where nothing depends on how it started, or on its memory.
        settings: As `environment` takes them.
    """
    arguments = ["--port", str(port), "--artifact", str(artifact)]
    given = environment(**settings) | dict(variables or {})
    process: subprocess.Popen[bytes] | ForkedServer
    with log.open("wb") as stderr:
        if forked:
            assert module == "service"
            process = ForkedServer(arguments, given, log)
        else:
            process = subprocess.Popen(command(*arguments, module=module), cwd=ROOT, env=given, stderr=stderr)
    try:
        yield ServerProcess(process, log, _wait_ready(process, log))
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def failed_start(log: Path, *arguments: str, **settings: object) -> tuple[int, str]:
    """Exit code and stderr of a server that ends by itself, forked from a process that has imported what it needs.

    Args:
        log: Takes what it writes to stderr.
        arguments: Of the command.
        settings: As `environment` takes them.
    """
    log.touch()
    process = ForkedServer(arguments, environment(**settings), log)
    try:
        return process.wait(PATIENCE_S), log.read_text()
    finally:
        process.kill()


def _wait_ready(process: subprocess.Popen[bytes] | ForkedServer, log: Path) -> str:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        assert process.poll() is None, log.read_text()
        found = re.search(r"listening on ([^\s\"]+)", log.read_text())
        if found and "ready after" in log.read_text():
            return found[1]
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def wait_until_refused(server: ServerProcess) -> None:
    """Until new connections are refused: the drain has begun."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            httpx.get(f"{server.url}/livez")
        except httpx.TransportError:
            return
    raise AssertionError("the server goes on")


def come_to_rest(server: ServerProcess) -> None:
    """Wait until no request is in flight and no crop waits."""
    end_s = time.monotonic() + PATIENCE_S
    while _is_at_work(server):
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < end_s, f"never came to rest: {unsettled(server)} crops unsettled"
        time.sleep(0.05)


def _is_at_work(server: ServerProcess) -> bool:
    scrape = server.scrape()
    waiting = (server.metric(name, scrape) for name in ("parseq_requests_in_flight", "parseq_queue_depth_crops"))
    return any(waiting) or unsettled(server, scrape) != 0


def outcomes(server: ServerProcess, scrape: str | None = None) -> dict[str, float]:
    scrape = server.scrape() if scrape is None else scrape
    names = ("done", "expired", "cancelled", "failed")
    return {name: server.metric(f'parseq_crops_total{{outcome="{name}"}}', scrape) for name in names}


def unsettled(server: ServerProcess, scrape: str | None = None) -> float:
    """Crops that were admitted and have no outcome, more than those that have two."""
    scrape = server.scrape() if scrape is None else scrape
    return server.metric("parseq_crops_admitted_total", scrape) - sum(outcomes(server, scrape).values())
