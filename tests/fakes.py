"""Stand-ins for tests of the service: a session that reads toy crops in numpy, a clock that is set by hand, and so on."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from artifact.metadata import ArtifactMetadata
from service.config import Settings
from service.core.runtime import Runtime
from service.engine.types import Exemplar, Item, Outcome, Outputs, Refusal, Wanted
from service.http.app import App
from service.sessions.artifact import LoadedArtifact
from service.sessions.topology import plan_topology
from service.tracing.tracing import Tracing
from tests.toy_artifact import CHARSET, METADATA, POISON, STEPS

PATIENCE_S = 60
"""How long a test waits for something that must happen; far beyond what it takes."""


class FakeClock:
    """A clock that is set by hand, from any thread."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds


def read_toy(crops: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What the toy artifact answers."""
    return crops[:, 0, :STEPS, 0].astype(np.int64), crops[:, 0, :STEPS, 1].astype(np.float32) / 255


class LaneKilled(BaseException):
    """Not an `Exception`: nothing on the way may swallow it."""


class FakeSession:
    """Reads toy crops; `gate` holds runs back until it is set; `batches` lists the sizes that were run."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.wanted: list[Wanted] = []
        """Of the runs of which more was wanted than the usual."""
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.answer: Callable[[NDArray[np.uint8]], tuple[Any, Any]] | None = None

    def run(self, crops: NDArray[np.uint8]) -> tuple[Any, Any]:
        self.batches.append(len(crops))
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.answer is not None:
            return self.answer(crops)
        if (crops[:, 0, -1, 2] == POISON).any():
            raise RuntimeError("poisoned crop")
        return read_toy(crops)

    def run_with(self, crops: NDArray[np.uint8], wanted: Wanted) -> Outputs:
        """The same. What is not allowed is read as the first entry that is; candidates are the token, the end, and the next
        entries."""
        self.wanted.append(wanted)
        token_ids, confidences = self.run(crops)
        if wanted.allowed is not None:
            for row, allowed in zip(token_ids, wanted.allowed, strict=True):
                row[(row > 0) & ~np.append(True, allowed)[row]] = 1 + int(np.argmax(allowed))
        if not wanted.top:
            return Outputs(token_ids, confidences)
        others = np.where(token_ids == 0, 1, 0)
        top_ids = np.stack([token_ids, others, *((token_ids + step) % len(CHARSET) + 1 for step in range(1, 4))], -1)
        return Outputs(
            token_ids, confidences, top_ids, confidences[..., None] * np.array([1, 0.02, 0.01, 0.005, 0], np.float32)
        )

    def wait_entered(self) -> None:
        """Wait until one more run has begun."""
        assert self.entered.acquire(timeout=PATIENCE_S)


class Tally:
    """An observer that counts."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.batches: list[int] = []

    def _add(self, name: str, n_items: int) -> None:
        with self.lock:
            self.counts[name] += n_items

    def admitted(self, n_items: int) -> None:
        self._add("admitted", n_items)

    def refused(self, n_items: int, refusal: Refusal) -> None:
        self._add(str(refusal), n_items)

    def settled(self, outcome: Outcome, n_items: int) -> None:
        self._add(str(outcome), n_items)

    def queue_waited(self, wait_s: float, exemplar: Exemplar) -> None:
        assert wait_s >= 0

    def batch_ran(self, n_items: int, duration_s: float, exemplar: Exemplar) -> None:
        assert duration_s >= 0
        self.batches.append(n_items)


class Mailbox:
    """Collects what an engine delivers; every item at most once."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._condition = threading.Condition()

    def deliver(self, items: Sequence[Item]) -> None:
        with self._condition:
            for item in items:
                assert item.outcome is not None
                assert item not in self.items
            self.items.extend(items)
            self._condition.notify_all()

    def wait_for(self, n_items: int) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.items) >= n_items, PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event to wait for."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def new_item(deadline_s: float = 1e12, bulk: bool = False, client: Hashable = None) -> Item:
    return Item(deadline_s, on_settled=lambda _item: None, bulk=bulk, client=client)


def toy_settings(**values: Any) -> Settings:
    """Settings for one lane and without tuning, from the defaults; the environment is not read."""
    return Settings.model_construct(**{**Settings.model_construct().model_dump(), "lanes": 1, "tune": False, **values})


def toy_runtime(
    session: Any = None, metadata: ArtifactMetadata = METADATA, tracing: Tracing | None = None, **settings: Any
) -> Runtime:
    chosen = toy_settings(**settings)
    artifact = LoadedArtifact(metadata, session or FakeSession(), "cpu", plan_topology(chosen, "cpu", budget=2))
    return Runtime(chosen, artifact, tracing=tracing)


@asynccontextmanager
async def serving(runtime: Runtime, wait: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app in this process, ready to answer unless told not to wait."""
    app = App(runtime)
    async with app.api.router.lifespan_context(app.api):
        if wait:
            await runtime.warmed_up()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


def with_client(runtime: Runtime, scenario: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run a scenario against the app of a runtime."""

    async def run() -> Any:
        async with serving(runtime) as client:
            return await scenario(client)

    return asyncio.run(run())


def request(runtime: Runtime, method: str, path: str, **options: Any) -> httpx.Response:
    """One request to a fresh app."""
    response = with_client(runtime, lambda client: client.request(method, path, **options))
    assert isinstance(response, httpx.Response)
    return response
