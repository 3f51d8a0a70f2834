"""The way of a request's crops: admission, decoding, engine, text."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from artifact.alternatives import read_with_alternatives
from artifact.metadata import ArtifactMetadata
from artifact.orientation import Orientation
from artifact.text import Reading, text_of
from service.core.choices import Choices
from service.core.crop_decoder import CropDecoder, EncodedImage, Leader
from service.core.inquiry import REASONS, Inquiry, Ways
from service.core.metrics import Metrics
from service.core.read_options import NO_OPTIONS, ReadOptions
from service.core.stages import keep_stages
from service.engine.types import CropEngine, EngineDownError, Item, Outcome, QueueFullError
from service.errors import (
    DEADLINE_EXPIRED,
    INFERENCE_FAILED,
    INTERNAL,
    NOT_READY,
    ClientLeftError,
    Problem,
)
from service.images.limits import ImageLimits
from service.images.pool import DecodePool
from service.process.request import current_request

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CropResult:
    """The text or the problem of one crop, and how long each stage took."""

    reading: Reading | Problem
    decode_s: float
    queue_s: float
    inference_s: float
    uncertain: bool = False
    """Whether the text has less confidence than the server's setting wants."""


class _Waiter:
    """Ends the wait of a request: when its items are settled, its deadline passes or its client leaves, whichever is first."""

    def __init__(self, n_items: int) -> None:
        self._left = n_items
        self.ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        """How the wait ended; `DONE` when all items are settled, well or badly."""

    def item_settled(self, _item: Item) -> None:
        self._left -= 1
        if self._left == 0:
            self.end(Outcome.DONE)

    def end(self, outcome: Outcome) -> None:
        # The wait may have ended in another way before: a finished future must not be set again.
        if not self.ended.done():
            self.ended.set_result(outcome)

    def client_left(self, watch: asyncio.Future[None]) -> None:
        if not watch.cancelled():
            self.end(Outcome.CANCELLED)


class Recognizer:
    """Reads image files: from bytes to texts.

    Args:
        engine: Running, or refusing items.
        metadata: Of the artifact: image size and charset.
        decode_pool: Where images are decoded; admission bounds its queue.
        image_limits: Limits of each image.
        metrics: Told how long decoding takes, and how sure the texts are.
        model: Its name, for metrics and traces.
        max_wait_s: A large picture that comes alone is turned away if others like it would keep it waiting for longer.
        orientation: Of requests that do not say which turned views are read.
        min_confidence: Texts with less confidence are flagged.
        clock: The engine's monotonic clock, in seconds.
    """

    def __init__(
        self,
        engine: CropEngine,
        metadata: ArtifactMetadata,
        decode_pool: DecodePool,
        *,
        image_limits: ImageLimits,
        metrics: Metrics,
        model: str,
        max_wait_s: float = math.inf,
        orientation: Orientation = "upright",
        min_confidence: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._metadata = metadata
        self._vocabulary = metadata.vocabulary
        self._decode_pool = decode_pool
        self._decoder = CropDecoder(
            engine,
            metadata,
            decode_pool,
            image_limits=image_limits,
            metrics=metrics,
            max_wait_s=max_wait_s,
            clock=clock,
        )
        self._model = model
        self._confidence, self._empty_texts = metrics.confidence.labels(model), metrics.empty_texts.labels(model)
        self._uncertain_texts = metrics.uncertain_texts.labels(model)
        self._extra_reads = {reason: metrics.extra_reads.labels(model, reason) for reason in REASONS}
        self._orientation = orientation
        self._min_confidence = min_confidence
        self._clock = clock
        self._choices = Choices(metadata)

    async def recognize(
        self,
        images: Sequence[EncodedImage],
        timeout_s: float,
        disconnected: Callable[[], Coroutine[None, None, None]],
        client: Hashable = None,
        bulk: bool | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> list[CropResult]:
        """Read all crops of a request: one result for each, in order.

        Args:
            images: The images; of regions, all are regions of one page.
            timeout_s: Seconds from now; crops not read by then get a `Problem` (504).
            disconnected: Returns when the client has left.
            client: Whose request it is; clients take turns.
            bulk: Whether single crops of other requests go first. `None`: they do if this request has several crops.
            options: How they are to be read.

        Raises:
            Problem: The model cannot read them so.
            QueueFullError: The request as a whole is turned away: at once, or later if its only picture turns out to be large.
            EngineDownError: The engine takes no requests.
            ClientLeftError: The client left before the answer.
        """
        allowed = None
        if options.alternatives or options.allowed is not None:
            allowed = self._choices.row_for(options)
        admitted_s = self._clock()
        waiter = _Waiter(len(images))
        several = len(images) > 1
        if bulk is None:
            bulk = several
        context = current_request.get()
        trace = None if context is None else context.trace
        exemplar = None if trace is None else trace.exemplar
        deadline_s, orientation = admitted_s + timeout_s, options.orientation or self._orientation
        if orientation == "upright" and not options.split:
            items: Sequence[Item] = [Item(deadline_s, waiter.item_settled, bulk, client) for _ in images]
        else:
            items = self._leaders(waiter, len(images), deadline_s, bulk, client, options)
        for item in items:
            item.allowed, item.wants_top, item.exemplar = allowed, options.alternatives > 0, exemplar
        self._engine.admit(items)
        decoding = None
        if bulk or several or not self._decoder.decode_at_once(items[0], images[0], admitted_s):
            decoding = self._decoder.decode_in_turn(items, images, admitted_s)
        try:
            await self._wait(items, waiter, timeout_s, disconnected)
        finally:
            if decoding is not None and decoding.jobs:
                self._decode_pool.drop(decoding)
            if trace is not None:
                keep_stages(trace, items, admitted_s, self._clock(), self._model)
        if isinstance(late := items[0].error, QueueFullError):
            raise QueueFullError(late.refusal, late.wait_s, late.retry_after_s)  # a new one: tracebacks hold the items
        return [self._result(item, options.alternatives) for item in items]

    def _leaders(
        self, waiter: _Waiter, n_items: int, deadline_s: float, bulk: bool, client: Hashable, options: ReadOptions
    ) -> Sequence[Item]:
        """Items that are read in several ways, and tell the waiter when they are settled with all their followers."""
        orientation = options.orientation or self._orientation
        reading_of = partial(self._reading_of, alternatives=options.alternatives)
        ways = Ways(orientation, options.split, self._metadata, self._engine, reading_of, self._count_extra)
        inquiries = [Inquiry(ways, waiter.item_settled, waiter.ended.done) for _ in range(n_items)]
        return [Leader(deadline_s, inquiry.item_settled, bulk, client, inquiry=inquiry) for inquiry in inquiries]

    async def _wait(
        self,
        items: Sequence[Item],
        waiter: _Waiter,
        timeout_s: float,
        disconnected: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        """Wait for all items, the deadline or the client's leaving; afterwards every item has an outcome."""
        loop = asyncio.get_running_loop()
        watch = loop.create_task(disconnected())
        watch.add_done_callback(waiter.client_left)
        timer = loop.call_later(timeout_s, waiter.end, Outcome.EXPIRED)
        outcome = Outcome.CANCELLED
        try:
            outcome = await waiter.ended
            if outcome is Outcome.CANCELLED:
                raise ClientLeftError
        finally:
            timer.cancel()
            watch.cancel()
            if outcome is not Outcome.DONE:
                waiter.end(outcome)
                self._engine.abandon(items, outcome)

    def _result(self, item: Item, alternatives: int) -> CropResult:
        if isinstance(item, Leader):
            reading: Reading | None = item.inquiry.found()
        else:
            reading = self._reading_of(item, alternatives)
        if reading is None:
            return CropResult(self._problem(item), item.decode_s, item.queue_s, item.inference_s)
        self._confidence.observe(reading.confidence)
        if not reading.text:
            self._empty_texts.inc()
        uncertain = reading.confidence < self._min_confidence
        if uncertain:
            self._uncertain_texts.inc()
        return CropResult(reading, item.decode_s, item.queue_s, item.inference_s, uncertain)

    def _count_extra(self, reason: str) -> None:
        self._extra_reads[reason].inc()

    def _reading_of(self, item: Item, alternatives: int) -> Reading | None:
        """What an item says by itself; `None` if it has not ended well, or says what is no text."""
        if item.token_ids is None or item.confidences is None or item.outcome is not Outcome.DONE:
            return None
        try:
            read = item.token_ids.tolist(), item.confidences.tolist()
            if item.top_ids is None or item.top_confidences is None:
                return text_of(*read, self._vocabulary)
            candidates = item.top_ids.tolist(), item.top_confidences.tolist()
            return read_with_alternatives(*read, *candidates, self._vocabulary, alternatives)
        except ValueError:
            logger.exception("the model's answer is not text")
            return None

    def _problem(self, item: Item) -> Problem:
        """Why there is no text."""
        if item.outcome is Outcome.EXPIRED:
            return Problem(DEADLINE_EXPIRED, "The crop was not read before its deadline. Try again when it is quieter.")
        match item.error:
            case Problem() as problem:
                return problem
            case EngineDownError():
                return Problem(NOT_READY, "The server stopped before the crop was read.")
            case None if item.outcome is Outcome.DONE:
                return Problem(INFERENCE_FAILED, "The model failed on this crop.")
            case None:
                return Problem(INTERNAL, "The server failed on this crop.")
            case _:
                logger.error("no text for a crop: %r", item.error)
                return Problem(INFERENCE_FAILED, "The model failed on this crop.")
