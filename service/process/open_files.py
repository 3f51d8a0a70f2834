"""How many files and connections the operating system lets this process have open."""

from __future__ import annotations

import math
import sys
from typing import Final

FILES_BESIDE_CONNECTIONS: Final = 128
"""For libraries, devices, pipes and the listening socket, of which about 30 were seen open; the rest are for a reload, and for
connections beyond the limit, which may ask the probes."""
FILES_OF_THE_PROCESS: Final = 40
FEWEST_BESIDE_CONNECTIONS: Final = 48
"""The same where the process may open few files."""
FEWEST_CONNECTIONS: Final = 4
MAX_SURPLUS: Final = 64


def allow_connections(max_connections: int) -> str | None:
    """Raise this process's own limit on open files as far as `max_connections` need it.

    Returns:
        A warning for the log where the system does not allow as many; else None.
    """
    if sys.platform == "win32":  # Windows has no such limit
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
    """How many connections a process that may open `max_files` can have; some files are kept back, so that probes get in."""
    beside = min(FILES_BESIDE_CONNECTIONS, max(FEWEST_BESIDE_CONNECTIONS, max_files / 2))
    return int(min(max_connections, max(FEWEST_CONNECTIONS, max_files - beside)))


def surplus_within(max_files: float, max_connections: int) -> int:
    """How many connections beyond `max_connections` there may be, so that the process keeps the files it needs itself."""
    return int(max(FEWEST_CONNECTIONS, min(MAX_SURPLUS, max_files - FILES_OF_THE_PROCESS - max_connections)))
