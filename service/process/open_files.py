"""How many files and connections the operating system lets this process have open."""

from __future__ import annotations

import math
import sys
from typing import Final

FILES_BESIDE_CONNECTIONS: Final = 128
"""Libraries, devices, pipes, the listening socket: about 30 were seen. The others are for a reload, and for connections beyond
the limit, which may ask the probes."""
FILES_OF_THE_PROCESS: Final = 40
FEWEST_BESIDE_CONNECTIONS: Final = 48
"""Where a process may have few files."""
FEWEST_CONNECTIONS: Final = 4
MAX_SURPLUS: Final = 64


def allow_connections(max_connections: int) -> str | None:
    """Raise this process's own limit on open files as far as so many connections need it.

    Returns:
        What to warn of, when that is more than the process may have.
    """
    if sys.platform == "win32":  # which has no such limit
        return None
    import resource

    wanted = max_connections + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most == wanted:
        return None
    fitting = connections_within(most, max_connections)
    return (
        f"this process may open {hard} files, too few for {max_connections} connections: there will be {fitting} at most; "
        "raise the limit (ulimit -n), or lower PARSEQ_MAX_CONNECTIONS"
    )


def max_open_files() -> float:
    """As many files as this process may have open now; infinity without a limit."""
    if sys.platform == "win32":
        return math.inf
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def connections_within(max_files: float, max_connections: int) -> int:
    """As many connections as a process may have that may open so many files: without one left, no probe would get in."""
    beside = min(FILES_BESIDE_CONNECTIONS, max(FEWEST_BESIDE_CONNECTIONS, max_files / 2))
    return int(min(max_connections, max(FEWEST_CONNECTIONS, max_files - beside)))


def surplus_within(max_files: float, max_connections: int) -> int:
    """As many connections beyond that limit as leave what the process itself needs."""
    return int(max(FEWEST_CONNECTIONS, min(MAX_SURPLUS, max_files - FILES_OF_THE_PROCESS - max_connections)))
