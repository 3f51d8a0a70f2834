"""What waits to be decoded, and in which order. Pure: no threads, no clock of its own, no images.

The rule is that of inference, with processor time in place of places. There are three classes: single crops, single crops
whose images turned out to be heavy, and the crops of requests with several ("bulk"). The more urgent class goes first, but each
of the others keeps a share of the time, one part in `BULK_EVERY`, and no more while others wait. Within a class clients take
turns by the time that their images took. Of one client the earliest deadline goes first, and each second that a request has
used sends it back by `SENT_BACK` seconds: a list of slow images is overtaken by those that came after it.

An image that is being decoded cannot be stopped. So one thread, the express one, takes only what is known to be quick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from service.engine.admission import PESSIMISM
from service.engine.fair_line import FairLine
from service.engine.queue import BULK_EVERY

SENT_BACK: Final = 4.0
LEARNING_WEIGHT: Final = 0.1
"""Share of an image's deviation that moves what is expected of those of its class."""
MIN_DECODE_S: Final = 1e-4
MAX_STRETCH: Final = 16.0
"""Threads are taken to have at least this part of a core."""

Job = Callable[[bool], bool]
"""Decodes one image, told whether only a light one may be; `False`, and nothing done, when it is not light."""


class Weight(IntEnum):
    """Classes of what is decoded, the most urgent first."""

    LIGHT = 0
    """A single crop, as far as is known a small image."""
    HEAVY = 1
    """A single crop whose image is large."""
    BULK = 2


@dataclass(slots=True, eq=False)
class DecodeRequest:
    """The images of one request, and its account."""

    client: Hashable
    bulk: bool
    deadline_s: float
    """On the clock of the queue's callers."""
    jobs: deque[Job]
    """Those that have not begun."""
    budget_s: float = float("inf")
    """A heavy single image that would wait longer is turned away."""
    on_refused: Callable[[float], None] = lambda _wait_s: None
    """Called with the predicted wait, in seconds, from a decode thread, instead of its job."""
    weight: Weight = Weight.LIGHT
    used_s: float = 0.0
    """Processor time of its images that are done."""
    n_done: int = 0
    n_running: int = 0
    counted_s: float = 0.0
    """What it is counted with in the work of its class."""

    @property
    def urgency(self) -> float:
        """Its deadline, sent back for what it has used."""
        return self.deadline_s + SENT_BACK * self.used_s


class _Ticket:
    """A request's place in a line; each image gets another one."""

    __slots__ = ("request", "waits")

    def __init__(self, request: DecodeRequest) -> None:
        self.request = request
        self.waits = True


class _Line:
    """The requests of one class, and what is known of the time they take."""

    def __init__(self) -> None:
        self.turns: FairLine[_Ticket] = FairLine(lambda ticket: ticket.waits)
        self.tickets: dict[DecodeRequest, _Ticket] = {}
        """Of requests with images that have not begun."""
        self.unfinished: set[DecodeRequest] = set()
        self.n_waiting = 0
        self.n_learnt = 0
        self.typical_s = 0.0
        """Processor time of an image."""
        self.stretch = 1.0
        """How many times longer it takes by the clock."""
        self.work_s = 0.0
        """Expected processor time of all that is unfinished."""
        self.saved_s = 0.0
        """Time of its share that it has not had; less than 0 when it has had more."""

    def push(self, request: DecodeRequest) -> None:
        ticket = self.tickets[request] = _Ticket(request)
        self.turns.push(request.client, request.urgency, ticket)

    def count(self, request: DecodeRequest) -> None:
        """Bring the work of the class up to date with a request's state."""
        left = len(request.jobs) + request.n_running
        counted_s = left * self.expected_s(request)
        self.work_s += counted_s - request.counted_s
        request.counted_s = counted_s
        if left:
            self.unfinished.add(request)
        else:
            self.unfinished.discard(request)
            if not self.unfinished:
                self.work_s = 0.0  # but for rounding it was

    def expected_s(self, request: DecodeRequest) -> float:
        """Processor time of one more image of the request."""
        return (self.typical_s + request.used_s) / (1 + request.n_done)

    def learn(self, cpu_s: float, wall_s: float) -> None:
        """An image took that long."""
        self.n_learnt += 1
        weight = max(LEARNING_WEIGHT, 1 / self.n_learnt)
        self.typical_s += weight * (cpu_s - self.typical_s)
        stretch = min(MAX_STRETCH, max(1.0, wall_s / max(cpu_s, MIN_DECODE_S)))
        self.stretch += weight * (stretch - self.stretch)

    def ahead_s(self, client: Hashable, urgency: float) -> float:
        """Processor time that goes before a newcomer: its client's more urgent requests, and as much of each other client."""
        own_s, others_s = 0.0, dict[Hashable, float]()
        for request in self.unfinished:
            if request.client != client:
                others_s[request.client] = others_s.get(request.client, 0.0) + request.counted_s
            elif request.urgency <= urgency:
                own_s += request.counted_s
        # A turn is one image: even who has nothing waits for one of each other client.
        return own_s + sum(min(work_s, own_s + self.typical_s) for work_s in others_s.values())


@dataclass(slots=True, eq=False)
class Running:
    """An image that a thread decodes."""

    request: DecodeRequest
    job: Job
    weight: Weight
    express: bool
    from_share: bool
    """Whether it is decoded although something more urgent waits."""


class DecodeQueue:
    """Requests with images to decode. Not thread-safe: the pool holds a lock around it.

    Args:
        threads: That decode whatever there is; the express one is not among them.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lines = tuple(_Line() for _ in Weight)
        self._express_works = False

    def push(self, request: DecodeRequest) -> None:
        """Add a request with at least one job."""
        request.weight = Weight.BULK if request.bulk else Weight.LIGHT
        self._push(request)

    def drop(self, request: DecodeRequest) -> None:
        """Nobody waits for the request any more: forget its images that have not begun."""
        line = self._lines[request.weight]
        ticket = line.tickets.pop(request, None)
        if ticket is not None:
            line.n_waiting -= len(request.jobs)
            request.jobs.clear()
            ticket.waits = False
            line.turns.left(request.client)
            line.count(request)

    def clear(self) -> None:
        """Forget everything that has not begun."""
        for line in self._lines:
            for request in list(line.tickets):
                self.drop(request)

    def waiting(self, bulk: bool) -> int:
        """Images of one class that have not begun."""
        light, heavy, of_bulk = self._lines
        return of_bulk.n_waiting if bulk else light.n_waiting + heavy.n_waiting

    def take(self, express: bool) -> Running | None:
        """The image that a free thread decodes next; `None`: nothing for it.

        Args:
            express: Whether it is the thread that takes only what is light.
        """
        weight, from_share = self._choose(express)
        if weight is None:
            return None
        line = self._lines[weight]
        ticket = line.turns.first()
        if ticket is None:
            raise RuntimeError("a class with images that wait has no first one")
        request = ticket.request
        ticket.waits = False
        line.turns.take(request.client)
        job = request.jobs.popleft()
        line.n_waiting -= 1
        if request.jobs:
            line.push(request)
        else:
            del line.tickets[request]
        request.n_running += 1
        self._express_works = self._express_works or express
        return Running(request, job, weight, express, from_share)

    def done(self, running: Running, cpu_s: float, wall_s: float, was_light: bool = True) -> float | None:
        """An image is decoded, or was found not to be light.

        Args:
            running: From `take`.
            cpu_s: Processor time it took.
            wall_s: Time by the clock.
            was_light: What its job returned.

        Returns:
            The predicted wait of an image that is turned away, in seconds; `None`: no such thing.
        """
        request, line = running.request, self._lines[running.weight]
        request.n_running -= 1
        request.used_s += cpu_s
        line.turns.charge(request.client, cpu_s)
        self._share(running, cpu_s)
        self._express_works = self._express_works and not running.express
        if was_light:
            request.n_done += 1
            line.learn(cpu_s, wall_s)
        line.count(request)
        return None if was_light else self._demote(request, running.job)

    def backlog_s(self, bulk: bool) -> float:
        """Seconds until all is decoded that may go before a newcomer of one class."""
        light, heavy, of_bulk = self._lines
        if bulk:
            return (heavy.work_s * heavy.stretch + of_bulk.work_s * of_bulk.stretch) / self._threads
        return light.work_s * light.stretch / (self._threads + 1)

    def wait_s(self, bulk: bool, client: Hashable, deadline_s: float) -> float:
        """Seconds until a newcomer would have its turn."""
        light, heavy, of_bulk = self._lines
        if bulk:
            ahead_s = of_bulk.ahead_s(client, deadline_s) * of_bulk.stretch
            return (heavy.work_s * heavy.stretch + ahead_s) / self._threads
        return light.ahead_s(client, deadline_s) * light.stretch / (self._threads + 1)

    def _push(self, request: DecodeRequest) -> None:
        line = self._lines[request.weight]
        line.n_waiting += len(request.jobs)
        line.push(request)
        line.count(request)

    def _choose(self, express: bool) -> tuple[Weight | None, bool]:
        """The class whose turn it is, and whether only because of its share."""
        light, heavy, of_bulk = self._lines
        if express:
            return (Weight.LIGHT if light.n_waiting else None), False
        # What waits alone is left to the express thread if that is free: it has been woken, and is not slowed down.
        spare = light.n_waiting > (0 if self._express_works else 1)
        for weight, line, urgent in ((Weight.BULK, of_bulk, spare or heavy.n_waiting), (Weight.HEAVY, heavy, spare)):
            if line.n_waiting and urgent and line.saved_s >= line.typical_s:
                return weight, True
        for weight, waits in ((Weight.LIGHT, spare), (Weight.HEAVY, heavy.n_waiting), (Weight.BULK, of_bulk.n_waiting)):
            if waits:
                return weight, False
        return None, False

    def _share(self, running: Running, cpu_s: float) -> None:
        """Classes that wait save up a part of what the more urgent ones use, and spend it when their share is due."""
        if running.from_share:
            self._lines[running.weight].saved_s -= cpu_s
        for weight in (Weight.HEAVY, Weight.BULK):
            line = self._lines[weight]
            if not line.n_waiting:
                line.saved_s = min(0.0, line.saved_s)
            elif weight > running.weight:
                line.saved_s += cpu_s / (BULK_EVERY - 1)

    def _demote(self, request: DecodeRequest, job: Job) -> float | None:
        heavy = self._lines[Weight.HEAVY]
        wait_s = heavy.ahead_s(request.client, request.urgency) * heavy.stretch / self._threads
        if PESSIMISM * wait_s > request.budget_s:
            return wait_s
        request.weight, request.counted_s = Weight.HEAVY, 0.0
        request.jobs.append(job)
        self._push(request)
        return None
