"""Workers as actors of Ray, on this machine or on a cluster.

The parts are the same as those of processes, and a part is finished when its file is there: nothing depends on what Ray keeps.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from reading.bulk.engine import Died, Done, EngineError, Event, Failed
from reading.bulk.parts import Job, Settings
from reading.bulk.sources.interface import reason_of
from reading.bulk.worker import OutputError, Worker
from reading.readers.interface import ReaderError

# Ray asks for it when it is first imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray

WAITING_S: Final = 30.0
"""After so long without a worker the user is told that the cluster has no room."""


Answer = tuple[str, Any]
"""`ready`, `halted` and why no part can be read, `errors` and their number in a finished part, or `failed` and why."""


class _Actor:
    """A worker. What it raises is told as a value: errors of libraries may not survive being sent."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._worker: Worker | str = Worker(settings)
        except ReaderError as error:
            self._worker = str(error)

    def ready(self) -> Answer:
        """Whether it can read."""
        return ("halted", self._worker) if isinstance(self._worker, str) else ("ready", None)

    def do(self, job: Job) -> Answer:
        """Read a part and write it."""
        if isinstance(self._worker, str):
            return "halted", self._worker
        try:
            return "errors", self._worker.do(job)
        except OutputError as error:
            return "halted", str(error)
        except Exception as error:  # sources, decoders and graphs fail in every way there is
            return "failed", reason_of(error)


@dataclass(slots=True)
class _Place:
    """An actor, what it was asked, and what it reads."""

    actor: Any
    asked: Any
    job: Job | None = None
    ready: bool = False


class RayActors:
    """Actors that read; one that dies is replaced.

    Args:
        settings: How they read. Artifact, sources and folder of the run must be there on each machine of the cluster.
        count: How many; 0: one for each of the cluster's CPUs.
        parts: How many there are to read: no more actors are started.
        address: Of a cluster; `None`: Ray is started on this machine, and ended with the run.

    Raises:
        EngineError: There is no such cluster.
    """

    def __init__(self, settings: Settings, count: int, parts: int, address: str | None) -> None:
        try:
            own: dict[str, Any] = {} if address else {"include_dashboard": False}
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **own)
        except Exception as error:  # as many kinds as there are ways to reach no cluster
            raise EngineError(f"there is no Ray cluster at {address or 'this machine'} ({reason_of(error)})") from error
        cpus = float(ray.cluster_resources().get("CPU", 1))
        self.count = min(parts, count or max(1, int(cpus)))
        # At least one CPU is never reserved: tasks of others, and Ray's own, would wait for ever.
        share = min(float(max(1, settings.reader.threads)), max(0.0, (cpus - 1) / self.count))
        self._class = ray.remote(_Actor).options(num_cpus=int(share * 100) / 100, max_restarts=0, max_concurrency=1)
        self._settings = settings
        self._waited_s = 0.0
        self._places = [self._started() for _ in range(self.count)]

    def free(self) -> int:
        """How many workers wait for a part."""
        return sum(place.ready and place.job is None for place in self._places)

    def give(self, job: Job) -> None:
        """Give a part to a worker that waits."""
        place = next(place for place in self._places if place.ready and place.job is None)
        place.job, place.asked = job, place.actor.do.remote(job)

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened, perhaps nothing.

        Raises:
            EngineError: The results cannot be written, or a worker cannot open the artifact.
        """
        by_answer = {place.asked: place for place in self._places if place.asked is not None}
        answered, _ = ray.wait(list(by_answer), num_returns=1, timeout=timeout_s)
        self._tell_of_waiting(timeout_s)
        return [event for answer in answered for event in self._events(by_answer[answer])]

    def close(self) -> None:
        """End all workers, also those that have a part."""
        for place in self._places:
            with suppress(Exception):
                ray.kill(place.actor)
        ray.shutdown()

    def _events(self, place: _Place) -> list[Event]:
        try:
            kind, value = ray.get(place.asked)
        except ray.exceptions.RayError as error:
            dead, self._places[self._places.index(place)] = place, self._started()
            return [] if dead.job is None else [Died(dead.job, f"its actor has ended ({reason_of(error)})")]
        if kind == "halted":
            raise EngineError(value)
        job, place.job, place.asked, place.ready = place.job, None, None, True
        if job is None:
            return []
        return [Done(job, value) if kind == "errors" else Failed(job, value)]

    def _started(self) -> _Place:
        actor = self._class.remote(self._settings)
        return _Place(actor, actor.ready.remote())

    def _tell_of_waiting(self, timeout_s: float) -> None:
        if any(place.ready for place in self._places):
            self._waited_s = 0.0
            return
        before_s, self._waited_s = self._waited_s, self._waited_s + timeout_s
        if before_s < WAITING_S <= self._waited_s:
            print("parseq-bulk: still waiting for a worker: has the cluster any CPU that is not reserved?", file=sys.stderr)
