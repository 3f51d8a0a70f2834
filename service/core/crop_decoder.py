"""From the images of a request to crops in the engine: on the event loop where that is quick, else on decode threads.

A small crop is decoded on the event loop: handing it to a thread would cost about as much.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from artifact.fit import fit_for
from artifact.metadata import ArtifactMetadata
from service.core.inquiry import Inquiry
from service.core.metrics import Metrics
from service.engine.admission import PESSIMISM
from service.engine.decode_backlog import DecodeRequest, Job
from service.engine.types import CropEngine, Item, QueueFullError, Refusal
from service.errors import IMAGE_TOO_COMPLEX, IMAGE_TOO_LARGE, Problem
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


@dataclass(slots=True, eq=False)
class Leader(Item):
    """A crop that is read in several ways."""

    inquiry: Inquiry = field(kw_only=True)


class CropDecoder:
    """Decodes images to the crops of admitted items.

    Args:
        engine: Takes the crops.
        metadata: Of the artifact: image size and fit.
        pool: Where images are decoded; admission bounds its queue.
        image_limits: Limits of each image.
        metrics: Told how long decoding takes.
        max_wait_s: A large picture that comes alone is turned away if others like it would keep it waiting for longer.
        clock: The engine's monotonic clock, in seconds.
    """

    def __init__(
        self,
        engine: CropEngine,
        metadata: ArtifactMetadata,
        pool: DecodePool,
        *,
        image_limits: ImageLimits,
        metrics: Metrics,
        max_wait_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._metadata = metadata
        self._pool = pool
        self._limits = image_limits
        self._page_limits = image_limits.for_page()
        self._quick_limits = replace(image_limits, max_pixels=min(QUICK_PIXELS, image_limits.max_pixels))
        self._light_limits = replace(image_limits, max_pixels=min(LIGHT_PIXELS, image_limits.max_pixels))
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._clock = clock

    def decode_at_once(self, item: Item, image: EncodedImage, admitted_s: float) -> bool:
        """On the event loop: decode a crop that takes less time than handing it over to a thread would; else `False`."""
        content = image.content
        if isinstance(content, (str, PageRegion)) or (isinstance(content, bytes) and not may_be_quick(content)):
            return False
        return self._decode(item, image, admitted_s, None, self._quick_limits)

    def decode_in_turn(self, items: Sequence[Item], images: Sequence[EncodedImage], admitted_s: float) -> DecodeRequest:
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
        self._pool.submit(request)
        return request

    def _open_page(
        self, page: EncodedPage, request: DecodeRequest, cuts: Collection[Job], items: Sequence[Item], _light: bool
    ) -> bool:
        """On a decode thread: decode a page, and have its regions cut out. If it cannot be decoded, each of them says why."""
        if any(item.outcome is None for item in items):
            started_s = self._clock()
            page.open(self._page_limits, self._metadata.image_height, self._metadata.image_width)
            self._metrics.decode_duration.observe(self._clock() - started_s, items[0].exemplar)
            self._pool.extend(request, cuts)
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
            if isinstance(item, Leader):
                crop, followers = item.inquiry.prepare(item, picture)
            else:
                crop, followers = fit_for(self._metadata, picture), []
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
