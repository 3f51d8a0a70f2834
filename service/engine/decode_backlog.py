"""Requests whose images are to be decoded, and how long images of their class take. Pure: no threads, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from service.engine.fair_queue import FairQueue

SENT_BACK: Final = 4.0
LEARNING_WEIGHT: Final = 0.1
"""Share of an image's deviation that moves what is expected of those of its class."""
MIN_DECODE_S: Final = 1e-4
MAX_STRETCH: Final = 16.0
"""How many times longer than its processor time an image is assumed to take, at most."""

Job = Callable[[bool], bool]
"""Decodes one image. Its argument says whether only a light image may be decoded; then it leaves any other image alone and
returns `False`."""


class Priority(IntEnum):
    """Classes of what is decoded, the most urgent first. The value is the index of a class."""

    LIGHT = 0
    """A single crop whose image is small, as far as is known."""
    HEAVY = 1
    """A single crop whose image is large."""
    BULK = 2


@dataclass(slots=True, eq=False)
class DecodeRequest:
    """The images of one request, and the processor time that it has used."""

    client: Hashable
    bulk: bool
    deadline_s: float
    """On the monotonic clock of the queue's callers."""
    jobs: deque[Job]
    """Decodings that have not begun."""
    budget_s: float = float("inf")
    """Seconds: a heavy single image that would wait longer is turned away."""
    on_refused: Callable[[float], None] = lambda _wait_s: None
    """Called with the predicted wait, in seconds, from a decode thread, instead of its job."""
    opening: bool = False
    """Whether its one job opens a page, from which other jobs then cut crops; those come by `DecodeQueue.extend`."""
    priority: Priority = Priority.LIGHT
    used_s: float = 0.0
    """Processor time of its images that are done."""
    opening_s: float = 0.0
    """The part of it that opening its page took."""
    n_done: int = 0
    n_running: int = 0
    counted_s: float = 0.0
    """Processor time with which it counts in `DecodeBacklog.work_s`."""

    @property
    def urgency(self) -> float:
        """Its deadline, put off by `SENT_BACK` times what it has used."""
        return self.deadline_s + SENT_BACK * self.used_s


class _Ticket:
    """A request's place in the queue of its class; each image gets a new one."""

    __slots__ = ("request", "waits")

    def __init__(self, request: DecodeRequest) -> None:
        self.request = request
        self.waits = True


class DecodeBacklog:
    """The requests of one priority, and what is known of the time they take. Not thread-safe."""

    def __init__(self) -> None:
        self.turns: FairQueue[_Ticket] = FairQueue(lambda ticket: ticket.waits)
        self.tickets: dict[DecodeRequest, _Ticket] = {}
        """The tickets of requests with images that have not begun."""
        self.begun: deque[DecodeRequest] = deque()
        """Requests whose page is open. Pages take much memory, so their jobs go before all others of the class."""
        self.unfinished: set[DecodeRequest] = set()
        self.n_waiting = 0
        self.n_learnt = 0
        self.typical_s = 0.0
        """Mean processor time of an image."""
        self.typical_opening_s = 0.0
        """Mean processor time of opening a page."""
        self.stretch = 1.0
        """How many times longer an image takes by the clock."""
        self.work_s = 0.0
        """Expected processor time of all unfinished requests."""
        self.credit_s = 0.0
        """Processor time of its share that the class has not had yet; negative when it has had more."""

    def push(self, request: DecodeRequest) -> None:
        """Put the request in line for its next image."""
        ticket = self.tickets[request] = _Ticket(request)
        self.turns.push(request.client, request.urgency, ticket)

    def take(self) -> DecodeRequest:
        """The request whose turn it is; the caller takes one of its jobs, and says so by `took`."""
        if self.begun:
            return self.begun[0]
        ticket = self.turns.first()
        if ticket is None:
            raise RuntimeError("a class with images that wait has no first one")
        ticket.waits = False
        self.turns.take(ticket.request.client)
        return ticket.request

    def took(self, request: DecodeRequest) -> None:
        """A job of the request that `take` has given is gone."""
        self.n_waiting -= 1
        if self.begun and self.begun[0] is request:
            if not request.jobs:
                self.begun.popleft()
        elif request.jobs:
            self.push(request)
        else:
            del self.tickets[request]

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
                self.work_s = 0.0  # as it is but for rounding

    def expected_s(self, request: DecodeRequest) -> float:
        """Processor time of one more image of the request."""
        if request.opening:
            return self.typical_opening_s
        return (self.typical_s + request.used_s - request.opening_s) / (1 + request.n_done)

    def learn_opening(self, cpu_s: float) -> None:
        """Learn from a page that was opened. Crops are quick to cut from it: they tell nothing about the next page."""
        weight = LEARNING_WEIGHT if self.typical_opening_s else 1.0
        self.typical_opening_s += weight * (cpu_s - self.typical_opening_s)

    def learn(self, cpu_s: float, wall_s: float) -> None:
        """Learn from an image that is decoded."""
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
        # A turn is one image: even a client with nothing in the queue waits for one image of each other client.
        return own_s + sum(min(work_s, own_s + self.typical_s) for work_s in others_s.values())
