"""Large bodies and answers let others go first."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from artifact.text import Reading
from service.core.crop_decoder import EncodedImage
from service.core.recognizer import CropResult
from service.http import turns
from service.http.bodies.body import Body
from service.http.dialects.v1 import V1, V1Crops
from service.http.dialects.v1_query import Wishes
from service.http.head import Head
from service.http.turns import Turns
from tests.fakes import FakeClock, toy_runtime, toy_settings
from tests.toy_artifact import png_of

N_CROPS = 128


async def rounds_during(work: Callable[[], Coroutine[Any, Any, Any]]) -> int:
    """How often the event loop goes round while a piece of work is done that never waits for anything."""
    rounds, task = 0, asyncio.ensure_future(work())
    while not task.done():
        await asyncio.sleep(0)
        rounds += 1
    await task
    return rounds


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is a turn, however fast the machine."""
    monkeypatch.setattr(turns, "TURN_S", 0.0)


def test_a_turn_is_passed_on_when_it_is_over_and_not_before() -> None:
    clock = FakeClock()
    shared = Turns(clock)

    async def short() -> None:
        for _ in range(1000):
            await shared.step()

    async def long() -> None:
        for _ in range(10):
            clock.advance(1.0)
            await shared.step()

    assert asyncio.run(rounds_during(short)) <= 2
    assert asyncio.run(rounds_during(long)) >= 10


def parse(content_type: bytes, content: bytes) -> Callable[[], Coroutine[Any, Any, V1Crops]]:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(content))]
    scope = {"type": "http", "method": "POST", "path": "/v1/recognize", "query_string": b"", "headers": headers}

    async def receive() -> Any:
        return {"type": "http.request", "body": content}

    return lambda: V1(toy_settings()).parse(Head(scope), Body(scope, receive, len(content), len(content)))


@pytest.mark.usefixtures("short_turns")
def test_a_form_of_many_small_parts_is_parsed_piece_by_piece() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + png_of("a") + b"\r\n"
    assert asyncio.run(rounds_during(parse(b"multipart/form-data; boundary=x", part * N_CROPS + b"--x--\r\n"))) > 2


@pytest.mark.usefixtures("short_turns")
def test_json_is_looked_through_piece_by_piece() -> None:
    images = [{"content": base64.b64encode(bytes(20_000)).decode()}] * N_CROPS
    assert asyncio.run(rounds_during(parse(b"application/json", json.dumps({"images": images}).encode()))) > 10


@pytest.mark.usefixtures("short_turns")
def test_a_list_of_results_is_written_one_by_one() -> None:
    result = CropResult(Reading("word", 0.5, (0.9,) * 4), 0.1, 0.2, 0.3)
    crops = V1Crops([EncodedImage(None, b"")] * N_CROPS, 1.0, Wishes(characters=True), as_list=True)
    head = Head({"method": "POST", "path": "/v1/recognize", "query_string": b"", "headers": []})
    dialect = V1(toy_settings())
    model = toy_runtime().models.default
    assert asyncio.run(rounds_during(lambda: dialect.answer(head, crops, [result] * N_CROPS, model, 1.0))) >= N_CROPS
