"""The processes of a pod, seen from outside."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.server import PATIENCE_S, ServerProcess


def fronts_of(server: ServerProcess) -> list[int]:
    """The numbers of its front processes."""
    return children_of(fork_server_of(server))


def fork_server_of(server: ServerProcess) -> int:
    """The process that forks the fronts."""
    [fork_server] = children_of(server.process.pid)
    return fork_server


def children_of(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def wait_for_fronts(server: ServerProcess, n_fronts: int) -> None:
    """Until so many serve."""
    end_s = time.monotonic() + PATIENCE_S
    while server.metric("parseq_front_processes") < n_fronts:
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < end_s, server.log.read_text()
        time.sleep(0.05)


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to, without the numbers of sockets and pipes."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sorted(str(link).partition(":[")[0] for link in links)


def shared_memory(pid: int) -> int:
    """How many pieces of shared memory a process has."""
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:parseq")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
