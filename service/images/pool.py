"""Threads that decode images, in the order of `DecodeQueue`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable
from queue import SimpleQueue
from typing import Final

from service.engine.decode_backlog import DecodeRequest, Job, Priority
from service.engine.decode_queue import DecodeQueue, Running
from service.process.cpu import lower_priority

logger = logging.getLogger(__name__)

Wake = SimpleQueue[bool]
"""Where a thread without work waits: `True` to look again, `False` to end."""
DECODE_NICENESS: Final = 10
"""Threads that may decode slow images give way to the event loop, to the express thread and to lanes."""


def decode_threads_for(budget: int) -> int:
    """How many decode threads a process with `budget` cores has, where the settings leave that open.

    Decoding a word takes a few per cent of the time that reading it takes, so these threads come on top of the lanes: a core
    reserved for them would idle.
    """
    return max(1, budget // 2)


class DecodePool:
    """Runs the jobs of requests on threads of its own; admission bounds how many can wait.

    The executor of `concurrent.futures` will not do: it takes jobs in the order in which they come, but clients here take turns
    by the processor time that they used, and one thread takes light images only. Its futures, which nobody would look at, also
    cost a good part of what decoding a crop costs.

    Args:
        threads: Threads that decode any image, at least 1. One more, the express thread, is kept for single crops.
        niceness: By how much those threads give way when cores are short, as `nice` counts it; the express thread does not.
        clock: Monotonic, seconds.
        cpu_clock: Seconds of processor time of the calling thread.
    """

    def __init__(
        self,
        threads: int,
        *,
        niceness: int = DECODE_NICENESS,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._queue = DecodeQueue(threads)
        self._lock = threading.Lock()
        self._niceness = niceness
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._stopping = False
        self._express_wake: Wake = SimpleQueue()
        self._express_idle = False
        self._wakes: list[Wake] = [SimpleQueue() for _ in range(threads)]
        self._idle: list[Wake] = []
        express = threading.Thread(target=self._work, args=(self._express_wake, True), name="decode-image-express", daemon=True)
        self._threads = [express] + [
            threading.Thread(target=self._work, args=(wake, False), name=f"decode-image-{index}", daemon=True)
            for index, wake in enumerate(self._wakes)
        ]

    def start(self) -> None:
        """Start the threads. Once."""
        for thread in self._threads:
            thread.start()

    def submit(self, request: DecodeRequest) -> None:
        """Queue the jobs of a request. A job must not raise; if one does, that is logged, and its thread goes on."""
        with self._lock:
            if not self._stopping:
                self._queue.push(request)
                self._wake(request.bulk, len(request.jobs))

    def extend(self, request: DecodeRequest, jobs: Collection[Job]) -> None:
        """Add jobs to a request from the job that opens its page (see `DecodeQueue.extend`)."""
        with self._lock:
            if not self._stopping:
                self._queue.extend(request, jobs)
                self._wake(True, len(jobs))

    def drop(self, request: DecodeRequest) -> None:
        """Forget the jobs of a request that have not begun."""
        with self._lock:
            self._queue.drop(request)

    def waiting(self, bulk: bool) -> int:
        """Images that have not begun: of requests with several crops, or of all others."""
        return self._queue.waiting(bulk)

    def backlog_s(self, bulk: bool) -> float:
        """Seconds until all images are decoded that may go before a new request's (see `Decoding`)."""
        return self._queue.backlog_s(bulk)

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        """Seconds until a new request of this client would have its turn (see `Decoding`)."""
        with self._lock:
            return self._queue.wait_s(bulk, client, deadline_s)

    def stop(self, *, wait: bool) -> None:
        """Drop the jobs that have not begun and end the threads.

        Args:
            wait: Whether to wait for the jobs that are running.
        """
        with self._lock:
            self._stopping = True
            self._queue.clear()
        for wake in (self._express_wake, *self._wakes):
            wake.put(False)
        for thread in self._threads:
            if wait and thread.ident is not None:
                thread.join()

    def _wake(self, bulk: bool, n_jobs: int) -> None:
        if not bulk and self._express_idle:
            self._express_idle = False
            self._express_wake.put(True)
            return
        for _ in range(min(n_jobs, len(self._idle))):
            self._idle.pop().put(True)

    def _work(self, wake: Wake, express: bool) -> None:
        if not express:
            lower_priority(self._niceness)
        while True:
            with self._lock:
                running = self._queue.take(express)
                if running is None and express:
                    self._express_idle = True
                elif running is None:
                    self._idle.append(wake)
            if running is not None:
                self._run(running)
                del running  # else its image would stay in memory until the next one comes
            elif not wake.get():
                return

    def _run(self, running: Running) -> None:
        started_s, cpu_started_s = self._clock(), self._cpu_clock()
        was_light = True
        try:
            was_light = running.job(running.priority is Priority.LIGHT) is not False
        except Exception:
            logger.exception("a decode job failed")
        cpu_s, wall_s = self._cpu_clock() - cpu_started_s, self._clock() - started_s
        with self._lock:
            refused_wait_s = self._queue.done(running, cpu_s, wall_s, was_light)
            if not was_light:
                self._wake(True, 1)
        if refused_wait_s is not None:
            running.request.on_refused(refused_wait_s)
