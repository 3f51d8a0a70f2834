"""Workers as processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final

from reading.bulk.engine import Advanced, Died, Done, EngineError, Event, Failed
from reading.bulk.parts import Job, Settings
from reading.bulk.sources.interface import reason_of
from reading.bulk.worker import OutputError, Worker
from reading.readers.interface import ReaderError

END_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Said:
    """What a worker says of the part that it has; without the part, which may hold many names."""

    rows: int | None = None
    """So many more were read."""
    errors: int | None = None
    """It is finished, with so many errors."""
    failed: str | None = None
    """Reading it has failed."""
    halted: str | None = None
    """No part can be read."""


class _Process:
    """A worker's process, our end of the line to it, and what it reads."""

    def __init__(self, settings: Settings) -> None:
        # Not forked: this process may have threads, and a copy of them would be stuck.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Job | None = None

    def event(self, said: _Said) -> list[Event]:
        if said.halted is not None:
            raise EngineError(said.halted)
        job = self.job
        if job is None:
            return []
        if said.rows is not None:
            return [Advanced(job, said.rows)]
        self.job = None
        return [Failed(job, said.failed) if said.failed is not None else Done(job, said.errors or 0)]

    def end(self) -> None:
        self.process.kill()
        self.process.join(END_WITHIN_S)
        self.connection.close()


class Processes:
    """Worker processes; one that dies is replaced.

    Args:
        settings: How they read.
        count: How many.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._processes = [_Process(settings) for _ in range(count)]

    def free(self) -> int:
        """How many workers wait for a part."""
        return sum(each.job is None for each in self._processes)

    def give(self, job: Job) -> None:
        """Give a part to a worker that waits."""
        process = next(each for each in self._processes if each.job is None)
        process.job = job
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as `wait` will find
            process.connection.send(job)

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened, perhaps nothing.

        Raises:
            EngineError: The results cannot be written, or a worker cannot open the artifact.
        """
        by_line = {each.connection: each for each in self._processes}
        events: list[Event] = []
        for line in wait(list(by_line), timeout_s):
            process = by_line[line]  # type: ignore[index]  # only connections are waited for
            try:
                events += process.event(process.connection.recv())
            except (EOFError, OSError):
                events += self._replace(process)
        return events

    def close(self) -> None:
        """End all workers, also those that have a part."""
        for each in self._processes:
            each.end()

    def _replace(self, dead: _Process) -> list[Event]:
        dead.end()
        code = dead.process.exitcode
        reason = f"ended by signal {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        self._processes[self._processes.index(dead)] = _Process(self._settings)
        return [] if dead.job is None else [Died(dead.job, f"its worker has {reason}")]


def _serve(line: Connection, settings: Settings) -> None:
    """A worker's process: read what comes, until nobody is there to send any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        worker = Worker(settings)
    except ReaderError as error:
        line.send(_Said(halted=str(error)))
        return
    while True:
        try:
            job: Job = line.recv()
        except EOFError:
            return
        line.send(_done(worker, job, line))


def _done(worker: Worker, job: Job, line: Connection) -> _Said:
    try:
        return _Said(errors=worker.do(job, lambda rows: line.send(_Said(rows=rows))))
    except OutputError as error:
        return _Said(halted=str(error))
    except Exception as error:  # sources, decoders and graphs fail in every way there is
        return _Said(failed=reason_of(error))


def _end_with_parent() -> None:
    """End when the process that started this one has: else it would write into a folder that may be another run's by then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
