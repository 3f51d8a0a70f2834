"""One container, run as a careful cluster would run it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from building import PODMAN
from steps import attempt, run, wait_until

GRACE_S: Final = 40
"""More than the service's own PARSEQ_DRAIN_TIMEOUT_S."""
HARDENED: Final = [
    "--read-only",
    "--read-only-tmpfs=false",  # podman would lay writable folders over the root
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--memory-swap=512m",
    "--cpus=1",
    # podman's own limits are higher than a machine that is itself a sandbox may give.
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
    # Without systemd podman cannot do it on time; the command is run by hand.
    "--no-healthcheck",
]
TMP: Final = ["--tmpfs=/tmp:rw,noexec,nosuid,size=16m"]
REQUEST_TIMEOUT_S: Final = 60


class Container:
    """A container that was started.

    Args:
        name: Its name.
        url: Where the service in it answers, if that can be reached from outside.
    """

    def __init__(self, name: str, url: str = "") -> None:
        self.name = name
        self.url = url

    def inspect(self, template: str) -> str:
        """A fact about it."""
        return run([*PODMAN, "inspect", "--format", template, self.name]).strip()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.inspect("{{.State.Status}}") == "running"

    @property
    def log(self) -> str:
        """All that it said."""
        ended = attempt([*PODMAN, "logs", self.name])
        return ended.stdout + ended.stderr

    def execute(self, *words: str) -> tuple[int, str]:
        """Run a command inside; its exit code and output."""
        ended = attempt([*PODMAN, "exec", self.name, *words])
        return ended.returncode, (ended.stdout + ended.stderr).strip()

    def status_field(self, name: str) -> str:
        """What the kernel says of its first process."""
        lines = Path(f"/proc/{self.inspect('{{.State.Pid}}')}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))

    def wait_ready(self) -> None:
        """Until the service says so in its log."""
        wait_until(f"{self.name} gets ready", lambda: "ready after" in self.log, lambda: self.alive)

    def stop(self) -> int:
        """Send the stop signal and wait; the exit code."""
        run([*PODMAN, "stop", "--time", str(GRACE_S), self.name])
        return int(self.inspect("{{.State.ExitCode}}"))

    def get(self, path: str) -> str:
        """The answer to a GET."""
        with urllib.request.urlopen(self.url + path, timeout=REQUEST_TIMEOUT_S) as answer:
            return str(answer.read().decode())

    def post(self, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of what is answered to a recognition request."""
        headers = {"Content-Type": content_type}
        request = urllib.request.Request(self.url + "/v1/recognize", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def started(image: str, *options: str, network: str = "none") -> Iterator[Container]:
    """A hardened container; removed at the end."""
    name = run([*PODMAN, "run", "--detach", *HARDENED, f"--network={network}", *options, image]).strip()[:12]
    try:
        yield Container(name)
    finally:
        run([*PODMAN, "rm", "--force", "--time", "0", name])


@contextmanager
def serving(image: str, *options: str) -> Iterator[Container]:
    """A hardened container whose service is ready on a loopback port."""
    port = free_port()
    listening = [f"--env=PARSEQ_PORT={port}", "--env=PARSEQ_HOST=127.0.0.1"]
    with started(image, *listening, *options, network="host") as container:
        container.url = f"http://127.0.0.1:{port}"
        container.wait_ready()
        yield container


def run_once(image: str, *options: str, arguments: Sequence[str] = (), network: str = "none") -> tuple[int, str]:
    """Run a hardened container to its end; exit code and output."""
    ended = attempt([*PODMAN, "run", "--rm", *HARDENED, f"--network={network}", *options, image, *arguments])
    return ended.returncode, (ended.stdout + ended.stderr).strip()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
