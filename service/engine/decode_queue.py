"""What waits to be decoded, and in which order. Pure: no threads, no clock of its own, no images.

The rule is that of inference, with processor time in place of places. There are three classes: single crops, single crops
whose images turned out to be heavy, and the crops of requests with several ("bulk"). The more urgent class goes first, but each
other class keeps a share of the time, one part in `BULK_EVERY`, and no more while others wait. Within a class, clients take
turns by the time that their images took. Of one client's requests the earliest deadline goes first, and each second that a
request has used puts it off by `SENT_BACK` seconds: requests that come later overtake a list of slow images.

A page of which regions are read is one image, whose crops are cut by jobs of their own: other requests go in between. As
pages take much memory, the jobs of those that are open go before all others of their class.

An image that is being decoded cannot be stopped. So one thread, the express thread, takes only images known to be quick.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from service.engine.admission import PESSIMISM
from service.engine.decode_backlog import DecodeBacklog, DecodeRequest, Job, Priority
from service.engine.queue import BULK_EVERY


@dataclass(slots=True, eq=False)
class Running:
    """An image that a thread is decoding."""

    request: DecodeRequest
    job: Job
    priority: Priority
    express: bool
    from_share: bool
    """Whether it is decoded for the share of its class, although something more urgent waits."""
    opening: bool = False
    """Whether it opens a page."""


class DecodeQueue:
    """Requests with images to decode. Not thread-safe: the pool holds a lock around it.

    Args:
        threads: Number of threads that decode any image; the express thread is not among them.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._backlogs = tuple(DecodeBacklog() for _ in Priority)
        self._express_works = False

    def push(self, request: DecodeRequest) -> None:
        """Add a request with at least one job."""
        request.priority = Priority.BULK if request.bulk else Priority.LIGHT
        self._push(request)

    def drop(self, request: DecodeRequest) -> None:
        """Nobody waits for the request any more: forget its images that have not begun."""
        backlog = self._backlogs[request.priority]
        ticket = backlog.tickets.pop(request, None)
        if request in backlog.begun:
            backlog.begun.remove(request)
            backlog.n_waiting -= len(request.jobs)
            request.jobs.clear()
            backlog.count(request)
        elif ticket is not None:
            backlog.n_waiting -= len(request.jobs)
            request.jobs.clear()
            ticket.waits = False
            backlog.turns.left(request.client)
            backlog.count(request)

    def clear(self) -> None:
        """Forget everything that has not begun."""
        for backlog in self._backlogs:
            for request in [*backlog.tickets, *backlog.begun]:
                self.drop(request)

    def extend(self, request: DecodeRequest, jobs: Iterable[Job]) -> None:
        """From the job that opens a page: add those that cut crops from it, at least one. They go first in their class."""
        backlog = self._backlogs[request.priority]
        request.opening = False
        request.jobs.extend(jobs)
        backlog.n_waiting += len(request.jobs)
        backlog.begun.append(request)
        backlog.count(request)

    def waiting(self, bulk: bool) -> int:
        """Images of one class that have not begun."""
        light, heavy, of_bulk = self._backlogs
        return of_bulk.n_waiting if bulk else light.n_waiting + heavy.n_waiting

    def take(self, express: bool) -> Running | None:
        """The image that a free thread decodes next; `None`: there is nothing for it.

        Args:
            express: Whether it is the express thread, which takes only light images.
        """
        priority, from_share = self._choose(express)
        if priority is None:
            return None
        backlog = self._backlogs[priority]
        request = backlog.take()
        job = request.jobs.popleft()
        backlog.took(request)
        request.n_running += 1
        self._express_works = self._express_works or express
        return Running(request, job, priority, express, from_share, request.opening)

    def done(self, running: Running, cpu_s: float, wall_s: float, was_light: bool = True) -> float | None:
        """An image is decoded, or was found not to be light.

        Args:
            running: From `take`.
            cpu_s: Processor time it took.
            wall_s: Time by the clock.
            was_light: What its job returned.

        Returns:
            If the image is to be turned away, its predicted wait in seconds; else `None`.
        """
        request, backlog = running.request, self._backlogs[running.priority]
        request.n_running -= 1
        request.used_s += cpu_s
        backlog.turns.charge(request.client, cpu_s)
        self._share(running, cpu_s)
        self._express_works = self._express_works and not running.express
        if running.opening:
            request.opening = False
            request.opening_s = cpu_s
            backlog.learn_opening(cpu_s)
        elif was_light:
            request.n_done += 1
            backlog.learn(cpu_s, wall_s)
        backlog.count(request)
        return None if was_light else self._demote(request, running.job)

    def backlog_s(self, bulk: bool) -> float:
        """Seconds until all images are decoded that may go before a new request of one class."""
        light, heavy, of_bulk = self._backlogs
        if bulk:
            return (heavy.work_s * heavy.stretch + of_bulk.work_s * of_bulk.stretch) / self._threads
        return light.work_s * light.stretch / (self._threads + 1)

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        """Seconds until a new request of this client would have its turn."""
        light, heavy, of_bulk = self._backlogs
        if bulk:
            ahead_s = of_bulk.ahead_s(client, deadline_s) * of_bulk.stretch
            return (heavy.work_s * heavy.stretch + ahead_s) / self._threads
        return light.ahead_s(client, deadline_s) * light.stretch / (self._threads + 1)

    def _push(self, request: DecodeRequest) -> None:
        backlog = self._backlogs[request.priority]
        backlog.n_waiting += len(request.jobs)
        backlog.push(request)
        backlog.count(request)

    def _choose(self, express: bool) -> tuple[Priority | None, bool]:
        """The class whose turn it is, and whether that is only because of its share."""
        light, heavy, of_bulk = self._backlogs
        if express:
            return (Priority.LIGHT if light.n_waiting else None), False
        # A single light image is left to the express thread if that is free: it has been woken, and no niceness slows it down.
        spare = light.n_waiting > (0 if self._express_works else 1)
        for priority, backlog, urgent in ((Priority.BULK, of_bulk, spare or heavy.n_waiting), (Priority.HEAVY, heavy, spare)):
            if backlog.n_waiting and urgent and backlog.credit_s >= backlog.typical_s:
                return priority, True
        for priority, waits in ((Priority.LIGHT, spare), (Priority.HEAVY, heavy.n_waiting), (Priority.BULK, of_bulk.n_waiting)):
            if waits:
                return priority, False
        return None, False

    def _share(self, running: Running, cpu_s: float) -> None:
        """Credit waiting classes with a part of the time that more urgent ones use; they spend it when their share is due."""
        if running.from_share:
            self._backlogs[running.priority].credit_s -= cpu_s
        for priority in (Priority.HEAVY, Priority.BULK):
            backlog = self._backlogs[priority]
            if not backlog.n_waiting:
                backlog.credit_s = min(0.0, backlog.credit_s)
            elif priority > running.priority:
                backlog.credit_s += cpu_s / (BULK_EVERY - 1)

    def _demote(self, request: DecodeRequest, job: Job) -> float | None:
        heavy = self._backlogs[Priority.HEAVY]
        wait_s = heavy.ahead_s(request.client, request.urgency) * heavy.stretch / self._threads
        if PESSIMISM * wait_s > request.budget_s:
            return wait_s
        request.priority, request.counted_s = Priority.HEAVY, 0.0
        request.jobs.append(job)
        self._push(request)
        return None
