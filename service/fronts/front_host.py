"""What a front process serves: the models as the engine's process tells of them, each with an engine that is there."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final

from artifact.metadata import ArtifactMetadata
from service.config import Settings
from service.core.metrics import Metrics
from service.core.models import Model, Models
from service.core.recognizer import Recognizer
from service.engine.admission import Budgets
from service.errors import NOT_READY, Problem
from service.fronts import wire
from service.fronts.board import HEARTBEAT_S, Board, PublishedAdmission
from service.fronts.front_engine import FrontEngine, Sender
from service.fronts.pod_metrics import snapshot
from service.fronts.wire import Kind, Wire
from service.images.limits import ImageLimits
from service.images.pool import DecodePool, decode_threads_for
from service.process.cpu import cpu_budget
from service.tracing.tracing import Tracing

SCRAPE_PATIENCE_S: Final = 5.0
ENGINE_SILENT_S: Final = 15.0
"""The engine's process counts as dead when its event loop has shown no life for so long."""
EXIT_ENGINE_GONE: Final = 5

logger = logging.getLogger(__name__)


def _nobody(_forced: bool) -> None:
    """Nobody wants to know."""


class FrontHost:
    """A `Host` whose engines are in another process.

    Args:
        settings: Of the service.
        end: To the engine's process, which has told of the models: `Wire.first`.
        board: Of the pod.
        sender: Of this front.
        front: Its index.
        n_fronts: In the pod.
        told: What the engine's process said first.
        tracing: Ends with it; `None`: no request is traced.
    """

    def __init__(
        self,
        settings: Settings,
        end: Wire,
        board: Board,
        sender: Sender,
        front: int,
        n_fronts: int,
        told: Mapping[str, Any],
        tracing: Tracing | None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.tracing = tracing
        if tracing is not None:
            tracing.count = self.metrics.spans_ended
        self.ends: Callable[[bool], None] = _nobody
        """Called when the pod ends, with whether requests in flight are dropped."""
        self._end, self._board, self._sender, self._front = end, board, sender, front
        self._drain_started_s: float | None = None
        threads = settings.decode_threads or decode_threads_for(cpu_budget())
        self._decode_pool = DecodePool(max(1, threads // n_fronts))
        self.metrics.watch_decoding(self._decode_pool.waiting)
        self._by_number: dict[int, FrontModel] = {}
        self.models: Models[Model] = Models(self._models_of(told["models"]))
        self._scrapes: dict[int, asyncio.Future[str]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        ready, alive, told_s = self._board.flags()
        return ready and alive and self._drain_started_s is None and time.monotonic() - told_s < ENGINE_SILENT_S

    @property
    def alive(self) -> bool:
        """Whether the pod can still do its work, now or after warm-up."""
        _, alive, told_s = self._board.flags()
        return alive and time.monotonic() - told_s < ENGINE_SILENT_S

    def start(self) -> None:
        """Begin to listen to the engine's process. On the event loop."""
        self._sender.start()
        self._decode_pool.start()
        self._end.attach(self._on_record, lambda: None, self._engine_gone)
        self._beat()
        self._end.send(wire.control(serving=True))

    def drain(self) -> float:
        """Turn readiness off; requests in flight go on. Returns when that began, on the monotonic clock."""
        if self._drain_started_s is None:
            self._drain_started_s = time.monotonic()
        return self._drain_started_s

    async def stop(self) -> None:
        """End the threads; all requests have been answered."""
        ends_s = self.drain() + self.settings.drain_timeout_s
        self._decode_pool.stop(wait=False)
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.stop, ends_s - time.monotonic())
        self._end.send(wire.control(last=snapshot(self.metrics.registry)))

    async def scrape(self, openmetrics: bool) -> bytes:
        """The metrics of all processes.

        Raises:
            Problem: The engine's process has not answered in time.
        """
        number = next(self._numbers)
        answer = self._scrapes[number] = asyncio.get_running_loop().create_future()
        text: str
        families = snapshot(self.metrics.registry)
        self._end.send(wire.control(scrape=number, openmetrics=openmetrics, families=families))
        try:
            text = await asyncio.wait_for(answer, SCRAPE_PATIENCE_S)
            return text.encode()
        except TimeoutError as error:
            raise Problem(NOT_READY, "The metrics of the other processes have not come in time.") from error
        finally:
            del self._scrapes[number]

    def _models_of(self, told: Sequence[Mapping[str, Any]]) -> list[FrontModel]:
        found = []
        for each in told:
            number = int(each["number"])
            if number not in self._by_number:
                self._by_number[number] = FrontModel(
                    each, self.settings, self._decode_pool, self.metrics, self._sender, self._board
                )
            found.append(self._by_number[number])
        return found

    def _on_record(self, kind: int, record: memoryview) -> None:
        if kind == Kind.RESULT:
            self._sender.settled(record)
        elif kind == Kind.REFUSED:
            self._sender.refused(record)
        elif kind == Kind.FREED:
            self._sender.freed(wire.FREED.unpack_from(record)[2])
        else:
            self._told(wire.read_control(record))

    def _told(self, what: Mapping[str, Any]) -> None:
        if "models" in what:
            models = self._models_of(what["models"])
            self.models.serve(models)
            for number, model in list(self._by_number.items()):
                if model not in models:
                    del self._by_number[number]
                    task = asyncio.get_running_loop().create_task(self._retire(number, model), context=Context())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        elif "scraped" in what:
            answer = self._scrapes.get(what["scraped"])
            if answer is not None and not answer.done():
                answer.set_result(what["text"])
        elif "snapshot" in what:
            self._end.send(wire.control(snapshot=what["snapshot"], families=snapshot(self.metrics.registry)))
        elif "end" in what:
            self.drain()
            self.ends(what["end"] == "forced")

    async def _retire(self, number: int, model: Model) -> None:
        """Tell when the last request for a model that is not served any more has been answered."""
        await model.until_unused(self.settings.receive_timeout_s + self.settings.batch_timeout_ms / 1000)
        self._end.send(wire.control(unused=number))

    def _beat(self) -> None:
        self._board.beat(self._front)
        asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat, context=Context())

    def _engine_gone(self) -> None:
        os._exit(EXIT_ENGINE_GONE)  # nobody is left to read anything, and its exit code is the pod's


class FrontModel(Model):
    """A model whose engine is in another process.

    Args:
        told: What the engine's process says of it.
        settings: Of the service.
        decode_pool: Of this front.
        metrics: Of this front.
        sender: Of this front.
        board: Of the pod.
    """

    def __init__(
        self,
        told: Mapping[str, Any],
        settings: Settings,
        decode_pool: DecodePool,
        metrics: Metrics,
        sender: Sender,
        board: Board,
    ) -> None:
        metadata = ArtifactMetadata.from_map(told["metadata"])
        super().__init__(told["name"], tuple(told["aliases"]), told["version"], metadata, told["sha256"], told["provider"])
        self.observer = metrics.observer(self.name)
        budgets = Budgets(settings.max_queue_wait_ms / 1000, settings.max_batch_queue_wait_ms / 1000)
        admission = PublishedAdmission(board, told["place"], told["lanes"], budgets, decode_pool)
        self.engine = FrontEngine(told["number"], sender, admission, self.observer)
        self.recognizer = Recognizer(
            self.engine,
            metadata,
            decode_pool,
            image_limits=ImageLimits.of(settings),
            metrics=metrics,
            model=self.name,
            max_wait_s=budgets.single_s,
            orientation=settings.orientation,
            min_confidence=settings.min_confidence,
        )
