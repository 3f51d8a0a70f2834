"""The engine's side of the fork server, a process that has imported what fronts need and forks them.

So a front that died is replaced within moments, several start together as fast as one, and they share the memory of what was
imported. The engine's process itself has threads, and a model, and cannot be forked.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

MODULE: Final = "service.front"
PID_BYTES: Final = 8
FORK_S: Final = 30.0
"""A fork server that takes longer to answer, its start counted, is replaced."""


class Child:
    """A process that the fork server has forked. It is no child of this one, but there is a descriptor of it.

    Args:
        pid: Its number.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it has ended. Once."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        await asyncio.to_thread(poll.poll)
        os.close(self._descriptor)
        with suppress(
            ChildProcessError
        ):  # it is one where this process is the first of a container and the fork server has died
            os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - which does not wait


class ForkServer:
    """Starts the process, and again when it has died, and asks it for fronts."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        # Numpy's matrix library would start a thread for each core, each with memory of its own; a front has no use for it.
        variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", MODULE, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(command, env=variables, pass_fds=(theirs.fileno(),))

    async def fork(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> Child | None:
        """A new front; `None`: the fork server has died meanwhile, and another one has been started.

        Args:
            told: Whatever can be JSON.
            descriptors: That it inherits.
        """
        async with self._one_at_a_time:
            loop = asyncio.get_running_loop()
            try:
                socket.send_fds(self._control, [json.dumps(told).encode()], descriptors)
                answer = await asyncio.wait_for(loop.sock_recv(self._control, PID_BYTES), FORK_S)
                if answer:
                    return Child(int.from_bytes(answer, "little"))
            except OSError:  # it has died or hangs, or the front has died as soon as it was there
                pass
            self.close()
            self._start()
            return None

    def close(self) -> None:
        """End it. Fronts go on."""
        self._control.close()
        self._process.kill()
        self._process.wait()
