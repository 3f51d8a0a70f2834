"""How many files and connections the operating system lets this process have open."""

from __future__ import annotations

import sys
from typing import Final

FILES_BESIDE_CONNECTIONS: Final = 128
"""Libraries, devices, pipes, the listening socket: about 30 were seen."""


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
    return (
        f"this process may open {hard} files, too few for {max_connections} connections: "
        "raise the limit (ulimit -n), or lower PARSEQ_MAX_CONNECTIONS"
    )
