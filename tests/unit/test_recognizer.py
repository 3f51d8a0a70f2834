"""What the engine learns of a crop's decoding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from service.bodies import Source
from service.decode_image import QUICK_PIXELS
from service.decode_pool import DecodePool
from service.engine.batcher import Engine
from service.engine.types import Crop, Item, Outcome
from service.image_limits import ImageLimits
from service.metrics import Metrics
from service.recognizer import Recognizer
from tests.images import encode, gradient
from tests.toy_artifact import METADATA, png_of

RANK = 7
"""Six other crops are being decoded."""


class NotingEngine:
    """Admits everything as one of many, notes the rank with which a crop is submitted, and reads nothing."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ranks: list[int] = []

    def admit(self, items: Sequence[Item]) -> None:
        for item in items:
            item.decode_rank = RANK

    def submit(self, item: Item, _crop: Crop) -> None:
        self.ranks.append(item.decode_rank)
        item.outcome = Outcome.DONE
        self.loop.call_soon_threadsafe(item.on_settled, item)


async def stays() -> None:
    await asyncio.Event().wait()


def rank_of(image: bytes) -> int:
    async def run() -> list[int]:
        engine, pool = NotingEngine(), DecodePool(1)
        pool.start()
        limits = ImageLimits(max_pixels=2 * QUICK_PIXELS)
        recognizer = Recognizer(cast(Engine, engine), METADATA, pool, image_limits=limits, metrics=Metrics())
        await recognizer.recognize([Source(None, image)], 3600.0, stays)
        pool.stop(wait=True)
        return engine.ranks

    [rank] = asyncio.run(run())
    return rank


def large_image() -> bytes:
    """Few bytes, and more pixels than are decoded at once; that is known when it has been tried."""
    width = 1024
    image = encode(gradient(width, 64).convert("L").convert("1"), "PNG")
    assert QUICK_PIXELS < width * 64 <= 2 * QUICK_PIXELS
    return image


@pytest.mark.parametrize(
    ("image", "rank"),
    [(png_of("a"), 1), (large_image(), RANK), (encode(gradient(), "WEBP"), RANK)],
    ids=["quick", "large", "slow"],
)
def test_a_crop_that_is_decoded_at_once_waited_for_no_other_and_tells_so(image: bytes, rank: int) -> None:
    """Else its time would be taken for that of all crops before it, and decoding for quicker than it is."""
    assert rank_of(image) == rank
