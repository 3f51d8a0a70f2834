"""How crops are posted to a service: shared out, again while it is busy, and never scored when it failed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from artifact.text import Reading
from artifact.views import Found
from reading.readers.interface import Picture, ReaderError
from reading.readers.service import CROPS_PER_REQUEST, ServiceReader

IMAGE = Image.new("RGB", (2, 2))
MODEL = {"name": "fake", "charset": "abc", "max_label_length": 9}
Answer = Callable[[list[bytes]], httpx.Response]


def reading(files: list[bytes]) -> httpx.Response:
    """Each file is its own text."""
    return httpx.Response(200, json={"results": [{"text": file.decode(), "confidence": 0.5} for file in files]})


def reader_of(answer: Answer, *, crops: int = 128, body_bytes: int = 2**20) -> tuple[ServiceReader, list[int], list[float]]:
    """A reader, the sizes of its requests, and the seconds that it waited."""
    sizes: list[int] = []
    waits: list[float] = []
    limits = {"max_crops_per_request": crops, "max_body_bytes": body_bytes, "max_image_pixels": 100}

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"models": [{**MODEL, "limits": limits}]})
        body: Any = json.loads(request.content)
        files = [base64.b64decode(image["content"]) for image in body["images"]]
        sizes.append(len(files))
        return answer(files)

    return ServiceReader("http://fake", transport=httpx.MockTransport(handle), sleep=waits.append), sizes, waits


def pictures(count: int, size: int = 1) -> list[Picture]:
    return [Picture(IMAGE, str(number % 10).encode() * size) for number in range(count)]


def test_crops_are_shared_out_and_come_back_in_order() -> None:
    reader, sizes, _ = reader_of(reading)
    assert [found.text for found in reader.read(pictures(70))] == [str(number % 10) for number in range(70)]
    assert sorted(sizes) == sorted([CROPS_PER_REQUEST, CROPS_PER_REQUEST, 6])
    reader.close()


def test_the_limits_of_the_service_hold() -> None:
    reader, sizes, _ = reader_of(reading, crops=4)
    assert len(reader.read(pictures(10))) == 10
    assert sorted(sizes) == [2, 4, 4]
    reader, sizes, _ = reader_of(reading, body_bytes=2000)
    assert len(reader.read(pictures(5, size=400))) == 5
    assert sorted(sizes) == [1, 2, 2]


def test_a_busy_service_is_asked_again_when_it_says() -> None:
    answers = [httpx.Response(429, headers={"Retry-After": "3"}), httpx.Response(503)]

    def busy(files: list[bytes]) -> httpx.Response:
        return answers.pop(0) if answers else reading(files)

    reader, sizes, waits = reader_of(busy)
    assert reader.read(pictures(2)) == [Reading("0", 0.5), Reading("1", 0.5)]
    assert (sizes, waits) == ([2, 2, 2], [3.0, 1.0])


def test_nobody_waits_for_ever() -> None:
    reader, _, waits = reader_of(lambda _: httpx.Response(429, headers={"Retry-After": "1000"}, json={"detail": "Full."}))
    with pytest.raises(ReaderError, match="answered 429: Full"):
        reader.read(pictures(1))
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(500, json={"detail": "Broken."}), "answered 500: Broken"),
        (httpx.Response(200, json={"results": []}), "0 results for 1 crops"),
        (
            httpx.Response(200, json={"results": [{"error": {"status": 504, "title": "Late", "detail": "Too."}}]}),
            "failed on a crop: Late. Too",
        ),
    ],
)
def test_what_fails_is_not_scored(answer: httpx.Response, told: str) -> None:
    reader, _, _ = reader_of(lambda _: answer)
    with pytest.raises(ReaderError, match=told):
        reader.read(pictures(1))


def test_a_crop_that_is_refused_reads_as_nothing() -> None:
    error = {"status": 422, "title": "The image cannot be decoded", "detail": ""}
    reader, _, _ = reader_of(lambda _: httpx.Response(200, json={"results": [{"error": error}]}))
    assert reader.read(pictures(1)) == [Reading("", 0.0)]
    assert reader.refused == 1


def test_what_is_no_service_of_ours_is_told() -> None:
    with pytest.raises(ReaderError, match="not a parseq-service"):
        ServiceReader("http://fake", transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hello")))


@pytest.mark.parametrize("telling", [{"charset": "ab"}, {"charset_url": "models/toy/charset"}])
def test_a_long_charset_is_fetched_from_its_place(telling: dict[str, str]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ocr/v1/models/toy/charset":
            return httpx.Response(200, json={"charset": "ab"})
        model = {name: value for name, value in MODEL.items() if name != "charset"}
        limits = {"max_crops_per_request": 1, "max_body_bytes": 100}
        return httpx.Response(200, json={"models": [{**model, **telling, "limits": limits}]})

    assert ServiceReader("http://fake/ocr", transport=httpx.MockTransport(handle)).charset == "ab"


def test_a_service_is_asked_to_turn_and_split_only_if_that_is_wanted() -> None:
    queries = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            limits = {"max_crops_per_request": 8, "max_body_bytes": 2**20}
            return httpx.Response(200, json={"models": [{**MODEL, "limits": limits}]})
        queries.append(request.url.query)
        word = {"text": "b", "confidence": 0.5, "box": [1, 2, 3, 4]}
        result = {"id": "0", "text": "a b", "confidence": 0.5, "angle": 90, "words": [word, word]}
        return httpx.Response(200, json={"results": [result]})

    for options in ({}, {"orientation": "auto"}, {"orientation": "full", "split": "auto"}):
        reader = ServiceReader("http://fake", transport=httpx.MockTransport(handle), **options)  # type: ignore[arg-type]
        [found] = reader.read(pictures(1))
        assert isinstance(found, Found)
        assert (found.text, found.angle, found.words[1].box) == ("a b", 90, (1, 2, 3, 4))
    assert queries == [b"", b"orientation=auto", b"orientation=full&split=auto"]
