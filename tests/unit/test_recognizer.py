"""Where crops are decoded, and what the engine learns of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from PIL import Image

from service.core.crop_decoder import LIGHT_BYTES, LIGHT_PIXELS, EncodedImage
from service.core.metrics import Metrics
from service.core.recognizer import CropResult, Recognizer
from service.engine.engine import Engine
from service.engine.types import Crop, Item, Outcome, QueueFullError, Refusal
from service.errors import DEADLINE_EXPIRED, IMAGE_TOO_LARGE, Problem
from service.images.decode import QUICK_PIXELS, decode_image
from service.images.limits import ImageLimits, PixelAccount
from service.images.pool import DecodePool
from tests.fakes import PATIENCE_S
from tests.hostile_images import scan_bomb
from tests.images import encode, gradient
from tests.toy_artifact import METADATA, png_of

IMAGE_LIMITS = ImageLimits()


class NotingEngine:
    """Admits everything, notes what it is told of each crop, and reads nothing."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.told: list[str] = []
        self.items: list[Item] = []

    def admit(self, items: Sequence[Item]) -> None:
        self.items += items

    def demote(self, _item: Item) -> None:
        self.told.append("demoted")

    def submit(self, item: Item, _crop: Crop) -> None:
        self.told.append(f"submitted by {threading.current_thread().name}")
        self._end(item, Outcome.DONE)

    def fail(self, item: Item, error: Exception) -> None:
        self.told.append("failed")
        item.error = error
        self._end(item, Outcome.FAILED)

    def abandon(self, items: Sequence[Item], outcome: Outcome) -> None:
        for item in items:
            item.outcome = outcome

    def _end(self, item: Item, outcome: Outcome) -> None:
        item.outcome = outcome
        self.loop.call_soon_threadsafe(item.on_settled, item)


async def stays() -> None:
    await asyncio.Event().wait()


def read(
    *images: bytes,
    timeout_s: float = 3600.0,
    max_wait_s: float = 3600.0,
    told: list[str] | None = None,
    limits: ImageLimits = IMAGE_LIMITS,
) -> tuple[NotingEngine, list[CropResult]]:
    """What the engine was told of the crops of a request, in `told` even when it is refused, and the results."""

    async def run() -> tuple[NotingEngine, list[CropResult]]:
        engine, pool = NotingEngine(), DecodePool(1)
        engine.told = [] if told is None else told
        pool.start()
        recognizer = Recognizer(
            cast(Engine, engine), METADATA, pool, image_limits=limits, metrics=Metrics(), model="toy", max_wait_s=max_wait_s
        )
        results = await recognizer.recognize([EncodedImage(None, image) for image in images], timeout_s, stays, client="me")
        assert (pool.waiting(True), pool.waiting(False)) == (0, 0)
        pool.stop(wait=True)
        return engine, results

    return asyncio.run(run())


def picture(width: int, height: int) -> bytes:
    image = encode(gradient(width, height).convert("L").convert("1"), "PNG")
    assert len(image) < LIGHT_BYTES
    return image


QUICK, LIGHT, HEAVY = png_of("a"), picture(1024, 64), picture(1024, 512)
assert QUICK_PIXELS < 1024 * 64 <= LIGHT_PIXELS < 1024 * 512
EXPRESS, OTHERS = "submitted by decode-image-express", "submitted by decode-image-0"


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (QUICK, ["submitted by MainThread"]),
        (LIGHT, [EXPRESS]),
        (encode(gradient(), "WEBP"), [EXPRESS]),
        (HEAVY, ["demoted", OTHERS]),
        (png_of("a") + bytes(LIGHT_BYTES), ["demoted", OTHERS]),
        (scan_bomb(16, 512), ["demoted", OTHERS]),
    ],
    ids=["quick", "light", "slow format", "many pixels", "many bytes", "many scans for its pixels, but not too many"],
)
def test_what_may_take_long_is_not_decoded_where_word_crops_are(image: bytes, told: list[str]) -> None:
    engine, _ = read(image)
    assert engine.told == told
    assert [item.client for item in engine.items] == ["me"]


def test_crops_of_a_request_with_several_are_not_decoded_where_single_ones_are() -> None:
    assert read(QUICK, HEAVY, LIGHT)[0].told == [OTHERS] * 3


def test_a_large_picture_that_others_would_keep_waiting_is_told_to_come_again() -> None:
    told: list[str] = []
    with pytest.raises(QueueFullError) as caught:
        read(HEAVY, max_wait_s=-1.0, told=told)
    assert told == ["demoted", "failed"]
    assert caught.value.refusal is Refusal.PREDICTED_WAIT


def test_the_images_of_a_request_have_so_many_pixels_together_and_no_more() -> None:
    limits = ImageLimits(max_request_pixels=1024 * 512 + 1024 * 64)
    engine, _ = read(HEAVY, HEAVY, LIGHT, LIGHT, limits=limits)
    outcomes = [item.outcome for item in engine.items]
    assert outcomes == [Outcome.DONE, Outcome.FAILED, Outcome.DONE, Outcome.FAILED]
    for problem in (engine.items[1].error, engine.items[3].error):
        assert isinstance(problem, Problem)
        assert problem.kind is IMAGE_TOO_LARGE
        assert "PARSEQ_MAX_REQUEST_PIXELS" in problem.detail
    engine, _ = read(HEAVY, limits=replace(limits, max_request_pixels=1))
    assert engine.items[0].outcome is Outcome.DONE, "its own limit is enough for a single image"


def test_crops_whose_deadline_has_passed_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate, decoded = threading.Event(), threading.Event(), list[bytes]()

    def decode(content: bytes, limits: ImageLimits, _account: PixelAccount | None) -> Image.Image:
        decoded.append(content)
        entered.set()
        assert gate.wait(PATIENCE_S)
        return decode_image(content, limits)

    monkeypatch.setattr("service.core.crop_decoder.decode_image", decode)
    threading.Timer(0.5, gate.set).start()
    _, results = read(LIGHT, LIGHT, LIGHT, timeout_s=0.1)
    assert decoded == [LIGHT]
    kinds = [result.reading.kind for result in results if isinstance(result.reading, Problem)]
    assert kinds[1:] == [DEADLINE_EXPIRED] * 2
