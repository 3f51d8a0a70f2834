"""The fork server, and the front processes that it forks, which serve HTTP and decode; who started it has the models
(`service.fronts.pod`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from service import __version__
from service.config import Settings
from service.fronts.board import Board, Cell
from service.fronts.fork_server import PID_BYTES
from service.fronts.front_engine import Sender
from service.fronts.front_host import FrontHost
from service.fronts.slots import Slots
from service.fronts.wire import Wire
from service.process.logs import configure_logging
from service.serving import Server, prepare_process, uvicorn_config
from service.tracing.tracing import open_tracing

PR_SET_PDEATHSIG: Final = 1
"""Of `prctl`, from linux/prctl.h."""
ASKED_BYTES: Final = 2**17
N_DESCRIPTORS: Final = 4


class FrontServer(Server):
    """Ends when the engine's process says so; signals are that process's."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield

    def end(self, forced: bool) -> None:
        """Answer what has begun and end; forced: drop it."""
        self.should_exit = True
        self.force_exit = self.force_exit or forced
        if forced:
            logging.getLogger("uvicorn.error").disabled = True


def serve(told: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Be a front until told to end.

    Args:
        told: By `Pod`.
        descriptors: Of the connection to the engine's process, the slots, the board, and the socket to listen at.
    """
    wire, slots, board_memory, listener = descriptors
    settings = Settings(**told["settings"])
    configure_logging(settings.log_level, settings.log_format)
    prepare_process()
    index, n_fronts = told["index"], told["fronts"]
    end, board = Wire(socket.socket(fileno=wire)), Board(board_memory)
    sender = Sender(end, Slots(slots, told["slot_bytes"]))
    tracing = open_tracing(os.environ, __version__)
    host = FrontHost(settings, end, board, sender, index, n_fronts, end.first(), tracing)
    tallies = Cell(board, index, 0, n_fronts), Cell(board, index, 1, n_fronts)
    server = FrontServer(uvicorn_config(settings, host, tallies), host)
    host.ends = server.end
    server.run(sockets=[socket.socket(fileno=listener)])


def serve_forks(control: socket.socket) -> None:
    """Fork a front whenever the engine's process asks for one. Returns in each front, when that is over, and never here."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the engine's process sees them end by itself
    gc.collect()
    gc.freeze()  # else each front looks through all that is imported, and copies it
    while True:
        asked, descriptors, _, _ = socket.recv_fds(control, ASKED_BYTES, N_DESCRIPTORS)
        if not asked:
            os._exit(0)
        pid = os.fork()
        if not pid:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(EOFError):  # the engine's process has ended meanwhile
                serve(json.loads(asked), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(pid.to_bytes(PID_BYTES, "little"))


def main(control: int, parent: int) -> None:
    """Be the fork server of the process `parent`, which has the other end of the socket `control`."""
    # Those of a terminal or a control group go to all processes; what they mean for the pod, its first process decides.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # of fronts, the end of their connection is the end
    if os.getppid() == parent:
        serve_forks(socket.socket(fileno=control))


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
    except BaseException:
        logging.getLogger(__package__).critical("a front process failed", exc_info=True)
        os._exit(1)
    logging.shutdown()
    # As in `service.__main__`: without taking Python apart while decode threads run.
    os._exit(0)
