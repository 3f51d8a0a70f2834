"""The way of a request's crops: admission, decode pool, engine, text.

Everything slow happens off the event loop. A small crop is decoded on it: handing it to a thread would cost about as much.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from artifact.alternatives import alternatives_of
from artifact.fit import fit_for
from artifact.metadata import ArtifactMetadata
from artifact.orientation import Orientation
from artifact.text import Reading, text_of
from service.core.choices import Choices
from service.core.inquiry import REASONS, Inquiry, Ways
from service.core.metrics import Metrics
from service.core.read_options import NO_OPTIONS, ReadOptions
from service.core.stages import keep_stages
from service.engine.admission import PESSIMISM
from service.engine.decode_backlog import DecodeRequest, Job
from service.engine.engine import Engine
from service.engine.types import EngineDownError, Item, Outcome, QueueFullError, Refusal
from service.errors import (
    DEADLINE_EXPIRED,
    IMAGE_TOO_COMPLEX,
    IMAGE_TOO_LARGE,
    INFERENCE_FAILED,
    INTERNAL,
    NOT_READY,
    ClientLeftError,
    Problem,
)
from service.images.decode import QUICK_PIXELS, RawPicture, decode_base64, decode_image, may_be_quick
from service.images.limits import ImageLimits, PixelAccount
from service.images.pages import EncodedPage, PageRegion
from service.images.pool import DecodePool
from service.process.logs import CONTEXT_KEY
from service.process.request import RequestContext, current_request

LIGHT_PIXELS: Final = 2**18
"""Width times height of a light image, at most; a larger picture that comes alone is decoded after the light ones."""
LIGHT_BYTES: Final = 2**18

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image as it arrived."""

    id: str | None
    """What the client calls it; `None`: nothing, and in a list its position is its id."""
    content: bytes | str | RawPicture | PageRegion
    """The file itself, or base64 text, or pixels, or a region of a page that all images of its request share."""


@dataclass(frozen=True, slots=True)
class CropResult:
    """The text or the problem of one crop, and how long each stage took."""

    reading: Reading | Problem
    decode_s: float
    queue_s: float
    inference_s: float
    uncertain: bool = False
    """Whether the text has less confidence than the server's setting wants."""


@dataclass(slots=True, eq=False)
class _Leader(Item):
    """A crop that is read in several ways."""

    inquiry: Inquiry | None = None


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
        engine: Engine,
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
        self._limits = image_limits
        self._page_limits = image_limits.for_page()
        self._quick_limits = replace(image_limits, max_pixels=min(QUICK_PIXELS, image_limits.max_pixels))
        self._light_limits = replace(image_limits, max_pixels=min(LIGHT_PIXELS, image_limits.max_pixels))
        self._max_wait_s = max_wait_s
        self._metrics = metrics
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
        orientation = options.orientation or self._orientation
        several_ways = options.split or orientation != "upright"
        wants_top = options.alternatives > 0
        if several_ways:
            reading_of = partial(self._reading_of, alternatives=options.alternatives)
            ways = Ways(orientation, options.split, self._metadata, self._engine, reading_of, self._count_extra)
        items: list[Item] = []
        for _ in images:
            if several_ways:
                inquiry = Inquiry(ways, waiter.item_settled, waiter.ended.done)
                item: Item = _Leader(admitted_s + timeout_s, inquiry.item_settled, bulk, client, inquiry=inquiry)
            else:
                item = Item(admitted_s + timeout_s, waiter.item_settled, bulk, client)
            item.allowed, item.wants_top, item.exemplar = allowed, wants_top, exemplar
            items.append(item)
        self._engine.admit(items)
        decoding = None
        if bulk or several or not self._decode_at_once(items[0], images[0], admitted_s):
            decoding = self._decode_in_turn(items, images, admitted_s)
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

    def _decode_at_once(self, item: Item, image: EncodedImage, admitted_s: float) -> bool:
        """On the event loop: decode a crop that takes less time than handing it over to a thread would; else `False`."""
        content = image.content
        if isinstance(content, (str, PageRegion)) or (isinstance(content, bytes) and not may_be_quick(content)):
            return False
        return self._decode(item, image, admitted_s, None, self._quick_limits)

    def _decode_in_turn(self, items: Sequence[Item], images: Sequence[EncodedImage], admitted_s: float) -> DecodeRequest:
        """Hand the images of a request to the decode threads."""
        first, context = items[0], current_request.get()
        # Several images are decoded as bulk even if their crops are not bulk: only a single one may turn out to be large.
        bulk = first.bulk or len(items) > 1
        account = PixelAccount(self._limits) if bulk else None
        jobs: deque[Job] = deque(
            partial(self._decode_by_weight, item, image, admitted_s, context, account)
            for item, image in zip(items, images, strict=True)
        )
        budget_s = min(self._max_wait_s, first.deadline_s - admitted_s)
        request = DecodeRequest(first.client, bulk, first.deadline_s, jobs, budget_s, partial(self._too_heavy, first))
        if isinstance(region := images[0].content, PageRegion):
            request.opening, request.jobs = True, deque([partial(self._open_page, region.page, request, jobs, items)])
        self._decode_pool.submit(request)
        return request

    def _open_page(
        self, page: EncodedPage, request: DecodeRequest, cuts: Collection[Job], items: Sequence[Item], _light: bool
    ) -> bool:
        """On a decode thread: decode a page, and have its regions cut out. If it cannot be decoded, each of them says why."""
        if any(item.outcome is None for item in items):
            started_s = self._clock()
            page.open(self._page_limits, self._metadata.image_height, self._metadata.image_width)
            self._metrics.decode_duration.observe(self._clock() - started_s, items[0].exemplar)
            self._decode_pool.extend(request, cuts)
        return True

    def _decode_by_weight(
        self,
        item: Item,
        image: EncodedImage,
        admitted_s: float,
        context: RequestContext | None,
        account: PixelAccount | None,
        light: bool,
    ) -> bool:
        """On a decode thread: decode an image. If it must be `light` and is not: `False`, and nothing done."""
        if not light:
            return self._decode(item, image, admitted_s, context, self._limits, account)
        light_bytes = not isinstance(image.content, PageRegion) and len(image.content) <= LIGHT_BYTES
        if light_bytes and self._decode(item, image, admitted_s, context, self._light_limits):
            return True
        self._engine.demote(item)
        return False

    def _too_heavy(self, item: Item, wait_s: float) -> None:
        """On a decode thread: turn away a large picture that others like it would keep waiting for too long."""
        late_s = PESSIMISM * wait_s - self._max_wait_s
        self._engine.fail(item, QueueFullError(Refusal.PREDICTED_WAIT, wait_s, late_s))

    def _decode(
        self,
        item: Item,
        image: EncodedImage,
        admitted_s: float,
        context: RequestContext | None,
        limits: ImageLimits,
        account: PixelAccount | None = None,
    ) -> bool:
        """From bytes to a queued crop, or a failed item; `False`, and nothing done, when the image must go to a thread."""
        if item.outcome is not None:
            return True  # ended meanwhile: nobody waits for it
        started_s = self._clock()
        try:
            if isinstance(image.content, (RawPicture, PageRegion)):
                picture = image.content.picture(limits)
            else:
                picture = decode_image(self._bytes_of(image.content), limits, account)
            inquiry = item.inquiry if isinstance(item, _Leader) else None
            if inquiry is None:
                crop, followers = fit_for(self._metadata, picture), None
            else:
                crop, followers = inquiry.prepare(item, picture)
        except Problem as problem:
            # Known from its header, before any decoding. What is too complex for these limits may be fine for the full ones.
            if problem.kind in (IMAGE_TOO_LARGE, IMAGE_TOO_COMPLEX) and limits.max_pixels < self._limits.max_pixels:
                return False
            self._engine.fail(item, problem.bare())
        except Exception as error:
            logger.exception("preprocessing failed", extra={CONTEXT_KEY: context})
            self._engine.fail(item, error)
        else:
            item.decode_s = self._clock() - admitted_s
            self._engine.submit(item, crop)
            if followers:
                self._engine.follow(item, followers)
        self._metrics.decode_wait.observe(started_s - admitted_s, item.exemplar)
        self._metrics.decode_duration.observe(self._clock() - started_s, item.exemplar)
        return True

    def _bytes_of(self, content: bytes | str) -> bytes:
        if isinstance(content, bytes):
            return content
        self._limits.check_base64(len(content))
        return decode_base64(content)

    def _result(self, item: Item, alternatives: int) -> CropResult:
        reading = self._reading_of(item, alternatives)
        if isinstance(item, _Leader) and item.inquiry is not None:
            reading = item.inquiry.found() or reading
        if reading is None:
            return CropResult(self._problem(item), item.decode_s, item.queue_s, item.inference_s)
        self._confidence.observe(reading.confidence)
        if not reading.text:
            self._empty_texts.inc()
        uncertain = reading.confidence < self._min_confidence
        if uncertain:
            self._uncertain_texts.inc()
        return CropResult(reading, item.decode_s, item.queue_s, item.inference_s, uncertain)

    def _count_extra(self, reason: str, n_reads: int) -> None:
        self._extra_reads[reason].inc(n_reads)

    def _reading_of(self, item: Item, alternatives: int) -> Reading | None:
        """What an item says by itself; `None` if it has not ended well, or says what is no text."""
        if item.token_ids is None or item.confidences is None or item.outcome is not Outcome.DONE:
            return None
        try:
            reading = text_of(item.token_ids.tolist(), item.confidences.tolist(), self._vocabulary)
            if item.top_ids is not None and item.top_confidences is not None:
                candidates = item.top_ids.tolist(), item.top_confidences.tolist()
                reading = replace(reading, alternatives=alternatives_of(*candidates, self._vocabulary, alternatives, reading))
        except ValueError:
            logger.exception("the model's answer is not text")
            return None
        return reading

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
