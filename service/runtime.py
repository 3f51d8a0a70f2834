"""What lives as long as the app: engine, decode pool, metrics, and whether the pod is ready."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from service.artifact import LoadedArtifact
from service.config import Settings
from service.decode_pool import DecodePool
from service.engine.admission import Budgets
from service.engine.batcher import Engine
from service.engine.cost import CostModel
from service.engine.devices import SpreadSession
from service.engine.scheduler import Limits
from service.engine.session import warm_up
from service.engine.types import Item
from service.metrics import Metrics
from service.recognizer import Recognizer

logger = logging.getLogger(__name__)

LANE_NICENESS = 5
"""Lanes that compute on as many cores as there are give way to the event loop, or all answers wait for a core."""
MIN_ENGINE_STOP_S = 1.0
"""What the engine gets to stop in even when the drain has used up its time."""


class Runtime:
    """One app's engine and what surrounds it.

    Args:
        settings: Of the service.
        artifact: The model.
        on_failure: Called when the warm-up fails, with one line; the server cannot become ready after it.
    """

    def __init__(
        self, settings: Settings, artifact: LoadedArtifact, on_failure: Callable[[str], None] = logger.critical
    ) -> None:
        self.settings = settings
        self.artifact = artifact
        self.metrics = Metrics(artifact.topology.buckets)
        self.topology = artifact.topology
        self._on_failure = on_failure
        self._warm = False
        self._drain_started_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warm_up: asyncio.Task[None] | None = None
        self._decode_pool = DecodePool(self.topology.decode_threads)
        tuned = bool(self.topology.durations_s) and not settings.max_batch_size
        self.cost = CostModel(self.topology.max_batch_size, capped_at_knee=tuned)
        limits = Limits(
            lanes=self.topology.lanes,
            max_queue_items=settings.max_queue_items,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            budgets=Budgets(settings.max_queue_wait_ms / 1000, settings.max_batch_queue_wait_ms / 1000),
        )
        self.engine = Engine(
            artifact.session,
            self.cost,
            limits,
            deliver=self._deliver,
            observer=self.metrics,
            lane_niceness=self._lane_niceness(),
            alone=artifact.alone,
        )
        self.recognizer = Recognizer(
            self.engine,
            artifact.metadata,
            self._decode_pool,
            max_image_pixels=settings.max_image_pixels,
            metrics=self.metrics,
        )
        self.metrics.watch_engine(self.engine)
        self.metrics.ready.set_function(lambda: float(self.ready))
        self.metrics.alive.set_function(lambda: float(self.alive))
        self.metrics.model.info(self._model_labels())

    @property
    def ready(self) -> bool:
        """Whether requests are accepted: warmed up, not draining, every lane alive."""
        return self._warm and self._drain_started_s is None and self.engine.alive

    @property
    def alive(self) -> bool:
        """Whether the process can still do its work, now or after warm-up."""
        return self.engine.alive

    def start(self) -> None:
        """Begin the warm-up; ready when it is over. On the event loop."""
        self._loop = asyncio.get_running_loop()
        self._warm_up = self._loop.create_task(self._become_ready())

    async def stop(self) -> None:
        """Not ready any more; run what was admitted, end the threads."""
        drain_started_s = self.drain()
        logger.info("stopping; %d crops wait", self.engine.depth)
        await self.warmed_up()
        # The server has waited for its connections since the drain began; what is left of the time is the engine's.
        left_s = drain_started_s + self.settings.drain_timeout_s - time.monotonic()
        drained = await asyncio.to_thread(self.engine.stop, max(MIN_ENGINE_STOP_S, left_s))
        self._decode_pool.stop(wait=drained)
        if not drained:
            logger.error("inference did not end within PARSEQ_DRAIN_TIMEOUT_S")
        logger.info("stopped")

    async def warmed_up(self) -> None:
        """Wait until the warm-up is over, well or badly."""
        if self._warm_up is not None:
            await asyncio.wait((self._warm_up,))

    def drain(self) -> float:
        """Turn readiness off; requests in flight go on. Returns when that began, on the monotonic clock."""
        if self._drain_started_s is None:
            self._drain_started_s = time.monotonic()
        return self._drain_started_s

    async def _become_ready(self) -> None:
        started_s = time.monotonic()
        try:
            durations_s = await asyncio.to_thread(self._run_all_sizes)
            self.cost.seed(self._run_times(durations_s))
        except Exception as error:
            self._on_failure(f"the artifact failed its warm-up: {type(error).__name__}: {str(error)[:300]}")
            return
        self.metrics.model.info(self._model_labels())  # now with the largest batch worth running
        self._decode_pool.start()
        self.engine.start()
        self._warm = True
        logger.info("ready after %.1f s of warm-up: %s", time.monotonic() - started_s, self.describe())

    def _run_times(self, warm_up_s: dict[int, float]) -> Mapping[int, float]:
        """Seconds of a run by batch size: those of the sweep, which saw the lanes at work, or of the warm-up."""
        known = self.topology.durations_s or warm_up_s
        if self.topology.buckets:
            known = {**warm_up_s, **known}  # a sweep that ended early has not seen all buckets
        return self.topology.padded(known)

    def _run_all_sizes(self) -> dict[int, float]:
        """Warm up every session; seconds of the lanes' runs by batch size."""
        metadata, session, alone = self.artifact.metadata, self.artifact.session, self.artifact.alone
        shape = (metadata.image_height, metadata.image_width)
        if alone is not None:
            warm_up([alone], *shape, (1,))
        slots = session.slots if isinstance(session, SpreadSession) else [session]
        return warm_up(slots, *shape, self.topology.warm_up_sizes)

    def describe(self) -> str:
        """The model and how it is run, in one line."""
        metadata, topology = self.artifact.metadata, self.topology
        alone = f" ({topology.alone_threads} for a crop that is alone)" if topology.alone_threads else ""
        return (
            f"model {metadata.model_name} ({metadata.decode_mode}, {metadata.refine_iters} refinements, "
            f"{metadata.precision}), provider {self.artifact.provider}, {topology.lanes} lanes x "
            f"{topology.intra_op_threads} threads{alone}, batches of up to {self.cost.cap} ({topology.origin}), "
            f"{topology.decode_threads} decode threads"
        )

    def _deliver(self, items: Sequence[Item]) -> None:
        """From any thread: tell the event loop which items are settled, one wake-up for all of them."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(_settle_all, items)
        except RuntimeError:
            # The loop is closed: the server was forced to stop, and whoever waited is gone.
            logger.warning("%d items were settled after the server stopped", len(items))

    def _lane_niceness(self) -> int:
        # A run of several threads waits for the slowest of them, and the session's own threads are not lanes.
        return LANE_NICENESS if self.artifact.provider == "cpu" and self.topology.intra_op_threads == 1 else 0

    def _model_labels(self) -> dict[str, str]:
        metadata = self.artifact.metadata
        return {
            "name": metadata.model_name,
            "decode_mode": metadata.decode_mode,
            "refine_iters": str(metadata.refine_iters),
            "precision": metadata.precision,
            "weights_sha256": metadata.weights_sha256,
            "provider": self.artifact.provider,
            "lanes": str(self.topology.lanes),
            "intra_op_threads": str(self.topology.intra_op_threads),
            "alone_threads": str(self.topology.alone_threads),
            "max_batch_size": str(self.cost.cap),
        }


def _settle_all(items: Sequence[Item]) -> None:
    for item in items:
        item.on_settled(item)
