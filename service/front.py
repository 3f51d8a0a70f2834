"""A front process: serves HTTP and decodes; the models are in the process that started it (`service.fronts.pod`)."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from service import __version__
from service.config import Settings
from service.fronts.board import Board, Cell
from service.fronts.front_engine import Sender
from service.fronts.front_host import EXIT_ENGINE_GONE, FrontHost
from service.fronts.slots import Slots
from service.fronts.wire import Wire
from service.process.logs import configure_logging
from service.serving import Server, prepare_process, uvicorn_config
from service.tracing.tracing import open_tracing

PR_SET_PDEATHSIG: Final = 1
"""Of `prctl`, from linux/prctl.h."""


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


def main(told: dict[str, Any]) -> None:
    """Serve until told to end.

    Args:
        told: By `Pod`: the settings, and descriptors that were inherited.
    """
    # Those of a terminal or a control group go to all processes; what they mean for the pod, its first process decides.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    _end_with(told["parent"])
    settings = Settings(**told["settings"])
    configure_logging(settings.log_level, settings.log_format)
    prepare_process()
    index, n_fronts = told["index"], told["fronts"]
    end, board = Wire(socket.socket(fileno=told["wire"])), Board(told["board"])
    sender = Sender(end, Slots(told["slots"], told["slot_bytes"]))
    tracing = open_tracing(os.environ, __version__)
    host = FrontHost(settings, end, board, sender, index, n_fronts, end.first(), tracing)
    tallies = Cell(board, index, 0, n_fronts), Cell(board, index, 1, n_fronts)
    server = FrontServer(uvicorn_config(settings, host, tallies), host)
    host.ends = server.end
    server.run(sockets=[socket.socket(fileno=told["listener"])])


def _end_with(parent: int) -> None:
    """Have the system kill this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_ENGINE_GONE)


if __name__ == "__main__":
    with contextlib.suppress(EOFError):
        main(json.loads(sys.argv[1]))
    logging.shutdown()
    # As in `service.__main__`: without taking Python apart while decode threads run.
    os._exit(0)
