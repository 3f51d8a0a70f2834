"""Two kinds of load: connections that wait for their answers, and a crowd that does not."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence

from benchmarks.serving.client import GIVE_UP_S, LOST, OK, Address, Connection, Traffic, connect


class Poster(Connection):
    """Posts again as soon as it has its answer, or after a pause of random length."""

    def __init__(self, traffic: Traffic, requests: Iterator[bytes], mean_pause_s: float) -> None:
        super().__init__(traffic)
        self._requests = requests
        self._pause_rate = 1 / mean_pause_s if mean_pause_s else None
        self._random = random.Random(0)
        self.stopped = False

    def answered(self, status: int) -> None:
        """Post the next one."""
        if self._pause_rate is None or status == LOST:
            self.post()
        else:
            asyncio.get_running_loop().call_later(self._random.expovariate(self._pause_rate), self.post)

    def post(self) -> None:
        """Post the next one, unless it is over."""
        if not self.stopped and not self.lost:
            self.send(next(self._requests))


class ClosedLoop:
    """Connections that each wait for an answer before they post again."""

    def __init__(self, address: Address, requests: Sequence[bytes], connections: int, *, mean_pause_s: float = 0.0) -> None:
        self.traffic = Traffic()
        self._address = address
        # Each begins elsewhere, so that they do not all post the same picture at the same time.
        self._posters = [
            Poster(self.traffic, itertools.islice(itertools.cycle(requests), index % len(requests), None), mean_pause_s)
            for index in range(connections)
        ]

    async def start(self) -> None:
        """Connect, then let all of them post."""
        for poster in self._posters:
            await connect(self._address, poster)
        for poster in self._posters:
            poster.post()

    async def stop(self) -> None:
        """Post no more, wait for what is in flight, hang up."""
        for poster in self._posters:
            poster.stopped = True
        await self.traffic.settle()
        for poster in self._posters:
            poster.close()


class Caller(Connection):
    """Goes back to its pool after each request."""

    def __init__(self, traffic: Traffic, pool: list[Caller]) -> None:
        super().__init__(traffic)
        self._pool = pool

    def answered(self, status: int) -> None:
        """Be free for the next one."""
        if not self.lost:
            self._pool.append(self)


class OpenLoop:
    """Posts at random moments (a Poisson process), whether or not there are answers; opens as many connections as it takes."""

    def __init__(self, address: Address, requests: Sequence[bytes], rate_per_s: float, seconds: float, seed: int) -> None:
        self.traffic = Traffic()
        self.offered = 0
        self._address = address
        self._requests = itertools.cycle(requests)
        self._arrivals_s = poisson_arrivals_s(rate_per_s, seconds, seed)
        self._free: list[Caller] = []
        self._all: list[Caller] = []
        self._posts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Offer all posts, each at its time; does not wait for the last answers."""
        loop = asyncio.get_running_loop()
        started_s = time.monotonic()
        for arrival_s in self._arrivals_s:
            due_s = started_s + arrival_s
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self.offered += 1
            while self._free and self._free[-1].lost:
                self._free.pop()
            if self._free:
                self._free.pop().send(next(self._requests), due_s)
            else:
                task = loop.create_task(self._post_on_a_new_connection(next(self._requests), due_s))
                self._posts.add(task)
                task.add_done_callback(self._posts.discard)

    async def _post_on_a_new_connection(self, request: bytes, due_s: float) -> None:
        caller = Caller(self.traffic, self._free)
        self._all.append(caller)
        (await connect(self._address, caller)).send(request, due_s)

    async def stop(self) -> None:
        """Wait for what is in flight, hang up."""
        await asyncio.gather(*self._posts)
        await self.traffic.settle()
        for caller in self._all:
            caller.close()


def poisson_arrivals_s(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Moments of a Poisson process within `[0, seconds)`."""
    clock = random.Random(seed)
    arrivals_s: list[float] = []
    now_s = clock.expovariate(rate_per_s)
    while now_s < seconds:
        arrivals_s.append(now_s)
        now_s += clock.expovariate(rate_per_s)
    return arrivals_s


async def seconds_until_answered(address: Address, request: bytes, pause_s: float = 0.02) -> float | None:
    """Post one request after the other until one is answered with 200: how long that took; `None` if it never was."""
    traffic = Traffic()
    pool: list[Caller] = []
    started_s = time.monotonic()
    while time.monotonic() - started_s < GIVE_UP_S:
        caller = await connect(address, Caller(traffic, pool))
        caller.send(request)
        await traffic.settle()
        caller.close()
        if traffic.answers and traffic.answers[-1].status == OK:
            return traffic.answers[-1].finished_s - started_s
        await asyncio.sleep(pause_s)
    return None
