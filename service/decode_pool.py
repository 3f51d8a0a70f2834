"""Threads that decode images, in order of arrival."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

logger = logging.getLogger(__name__)

Job = Callable[[], object]
_END: Final = None


class DecodePool:
    """Runs jobs on threads of its own; admission bounds how many can wait.

    A `ThreadPoolExecutor` would do, but each of its futures costs as much as a good part of decoding a crop, and nobody here
    would look at them.

    Args:
        threads: At least 1.
    """

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._dropping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-image-{index}", daemon=True) for index in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Have `job` run soon; it must not raise, but if it does that is logged and costs no thread."""
        self._jobs.put(job)

    def stop(self, *, wait: bool) -> None:
        """Drop the jobs that have not begun and end the threads; `wait` for the jobs at work."""
        self._dropping = True
        for _ in self._threads:
            self._jobs.put(_END)
        for thread in self._threads:
            if wait and thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _END:
            try:
                if not self._dropping:
                    job()
            except Exception:
                logger.exception("a decode job failed")
            del job  # its image must not live until the next one comes
