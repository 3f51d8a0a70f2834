"""The recognition endpoint below the level of an HTTP client: headers, connections that end, servers that stop."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service import errors
from service.core.runtime import Runtime
from service.http.app import App
from service.http.head import TIMEOUT_HEADER
from service.images.decode import QUICK_PIXELS
from tests.fakes import FakeSession, request, serving, toy_runtime, until, with_client
from tests.images import encode, gradient
from tests.toy_artifact import png_of

PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
JSON = json.dumps({"images": [{"content": base64.b64encode(png_of(text)).decode()} for text in "ab"]}).encode()
BOUNDARY = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
BODIES = {
    "image/png": (png_of("a"), 1),
    "multipart/form-data; boundary=x": ((BOUNDARY + png_of("a") + b"\r\n") * 2 + b"--x--\r\n", 2),
    "application/json": (JSON, 2),
}


class Connection:
    """A client's connection as the server hands it to the app: it sends `body`, then stays until `leave` is called."""

    def __init__(self, body: bytes, content_type: str, *, complete: bool = True) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": [(b"content-type", content_type.encode())],
        }
        self.sent: list[Any] = []
        self._messages: list[Any] = [{"type": "http.request", "body": body, "more_body": not complete}]
        self._left = asyncio.Event()

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._left.set()


def with_app(runtime: Runtime, scenario: Callable[[App], Any]) -> None:
    async def run() -> None:
        async with serving(runtime):
            await scenario(App(runtime))

    asyncio.run(run())


@pytest.mark.parametrize("content_type", BODIES)
def test_a_client_that_leaves_takes_its_crops_along(content_type: str) -> None:
    session, (body, n_crops) = FakeSession(), BODIES[content_type]
    runtime = toy_runtime(session, max_batch_size=1)

    async def scenario(app: App) -> None:
        session.batches.clear()
        session.gate.clear()
        connection = Connection(body, content_type)
        serving_it = asyncio.ensure_future(app(connection.scope, connection.receive, connection.send))
        await until(lambda: sum(session.batches) + runtime.models.default.engine.depth == n_crops)
        connection.leave()
        await serving_it
        session.gate.set()

    with_app(runtime, scenario)
    text = runtime.metrics.render().decode()
    assert f'parseq_crops_total{{model="toy",outcome="cancelled"}} {n_crops}.0' in text
    assert 'parseq_request_duration_seconds_count{status="499"} 1.0' in text
    assert "parseq_requests_in_flight 0.0" in text


@pytest.mark.parametrize("content_type", BODIES)
def test_a_client_that_leaves_amid_its_body_is_nobodys_problem(content_type: str) -> None:
    runtime, (body, _) = toy_runtime(), BODIES[content_type]

    async def scenario(app: App) -> None:
        connection = Connection(body[:20], content_type, complete=False)
        connection.leave()
        await app(connection.scope, connection.receive, connection.send)

    with_app(runtime, scenario)
    text = runtime.metrics.render().decode()
    assert 'parseq_crops_admitted_total{model="toy"} 0.0' in text
    assert 'parseq_request_duration_seconds_count{status="499"} 1.0' in text
    assert not re.search(r"^parseq_problems_total\{.*\} [^0]", text, re.M)


def test_a_request_cut_off_at_the_end_of_the_drain_is_a_problem() -> None:
    session = FakeSession()
    runtime = toy_runtime(session)
    connection: Connection | None = None

    async def scenario(app: App) -> None:
        nonlocal connection
        session.batches.clear()
        session.gate.clear()
        connection = Connection(png_of("a"), "image/png")
        serving_it = asyncio.ensure_future(app(connection.scope, connection.receive, connection.send))
        await until(lambda: len(session.batches) == 1)
        serving_it.cancel()
        await serving_it
        session.gate.set()

    with_app(runtime, scenario)
    assert connection is not None
    start, body = connection.sent
    assert start["status"] == 503
    assert json.loads(body["body"])["type"] == errors.NOT_READY.type
    text = runtime.metrics.render().decode()
    assert 'parseq_request_duration_seconds_count{status="503"} 1.0' in text
    assert 'parseq_crops_total{model="toy",outcome="cancelled"} 1.0' in text
    assert "parseq_requests_in_flight 0.0" in text


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    runtime = toy_runtime()
    connection: Connection | None = None

    async def cut_off(message: Any) -> None:
        assert connection is not None
        connection.sent.append(message)
        raise asyncio.CancelledError

    async def scenario(app: App) -> None:
        nonlocal connection
        connection = Connection(png_of("a"), "image/png")
        with pytest.raises(asyncio.CancelledError):
            await app(connection.scope, connection.receive, cut_off)

    with_app(runtime, scenario)
    assert connection is not None
    assert [message["type"] for message in connection.sent] == ["http.response.start"]
    assert "parseq_requests_in_flight 0.0" in runtime.metrics.render().decode()


def post_while_busy(settings: dict[str, float], timeout_ms: str, **options: Any) -> httpx.Response:
    """A post that is never read: it ends by its own time-out or by that of the settings."""
    session = FakeSession()
    runtime = toy_runtime(session, **settings)

    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        session.gate.clear()
        headers = {**options.pop("headers", {}), TIMEOUT_HEADER: timeout_ms}
        response = await client.post(PATH, headers=headers, **options)
        session.gate.set()
        return response

    response = with_client(runtime, scenario)
    assert isinstance(response, httpx.Response)
    return response


LONG, SHORT = 3_600_000.0, 20.0
"""Milliseconds: longer than a test may take, and what ends it."""


@pytest.mark.parametrize(("configured_ms", "wanted"), [(LONG, "100"), (LONG, "1.05e2"), (SHORT, "3600000")])
def test_the_shorter_of_both_time_outs_counts_for_a_single_crop(configured_ms: float, wanted: str) -> None:
    settings = {"request_timeout_ms": configured_ms, "batch_timeout_ms": LONG, "max_queue_wait_ms": LONG}
    response = post_while_busy(settings, wanted, content=png_of("a"), headers=PNG)
    assert response.json()["type"] == errors.DEADLINE_EXPIRED.type


@pytest.mark.parametrize(("configured_ms", "wanted"), [(LONG, "100"), (SHORT, "3600000")])
def test_the_shorter_of_both_time_outs_counts_for_several_crops(configured_ms: float, wanted: str) -> None:
    settings = {"request_timeout_ms": LONG, "batch_timeout_ms": configured_ms, "max_batch_queue_wait_ms": LONG}
    results = post_while_busy(settings, wanted, content=JSON, headers={"content-type": "application/json"}).json()["results"]
    assert [result["error"]["type"] for result in results] == [errors.DEADLINE_EXPIRED.type] * 2


@pytest.mark.parametrize(
    "wanted", ["", "0", "-5", "2.5", "99.99", "soon", "nan", "inf", "1e999", "1_000", "5 s", "500, 500", "0x100"]
)
def test_a_time_out_that_cannot_be_meant_is_told(wanted: str) -> None:
    response = request(toy_runtime(), "POST", PATH, content=png_of("a"), headers={**PNG, TIMEOUT_HEADER: wanted})
    assert response.status_code == 400
    assert response.json()["type"] == errors.MALFORMED_REQUEST.type
    assert TIMEOUT_HEADER in response.json()["detail"]


SERVER_TIMING = re.compile(r"decode;dur=(\S+), queue;dur=(\S+), inference;dur=(\S+), total;dur=(\S+)")


@pytest.mark.parametrize("content_type", BODIES)
def test_server_timing_says_what_the_body_says(content_type: str) -> None:
    response = request(toy_runtime(), "POST", PATH, content=BODIES[content_type][0], headers={"content-type": content_type})
    timings = response.json()["timings"]
    found = SERVER_TIMING.fullmatch(response.headers["server-timing"])
    assert found is not None
    assert [float(value) for value in found.groups()] == [
        timings[name] for name in ("decode_ms", "queue_ms", "inference_ms", "total_ms")
    ]


def test_a_crop_that_failed_has_its_timings_too() -> None:
    response = request(toy_runtime(), "POST", PATH, content=b"junk", headers=PNG)
    assert response.status_code == 422
    assert SERVER_TIMING.fullmatch(response.headers["server-timing"])
    assert "server-timing" not in request(toy_runtime(), "POST", PATH).headers


def decoding_thread(monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """Which thread decoded the image of a request to completion."""
    from service.core import crop_decoder

    decode, threads = crop_decoder.decode_image, []

    def noting(*arguments: Any) -> Any:
        image = decode(*arguments)
        threads.append(threading.current_thread().name)
        return image

    monkeypatch.setattr(crop_decoder, "decode_image", noting)
    runtime = toy_runtime()
    assert request(runtime, "POST", PATH, **options).status_code == 200
    text = runtime.metrics.render().decode()
    assert "parseq_image_decode_duration_seconds_count 1.0" in text
    assert "parseq_image_decode_wait_seconds_count 1.0" in text
    [name] = threads
    return name


def test_only_quick_crops_are_decoded_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = threading.current_thread().name
    many_pixels = encode(gradient(1024, 64).convert("L").convert("1"), "PNG")
    assert QUICK_PIXELS < 1024 * 64
    assert decoding_thread(monkeypatch, content=png_of("a")) == loop
    assert decoding_thread(monkeypatch, content=encode(gradient(), "JPEG")) == loop
    assert decoding_thread(monkeypatch, content=many_pixels).startswith("decode-image")
    assert decoding_thread(monkeypatch, content=encode(gradient(), "WEBP")).startswith("decode-image")
    images = {"images": [{"content": base64.b64encode(png_of("a")).decode()}]}
    assert decoding_thread(monkeypatch, json=images).startswith("decode-image")


@pytest.mark.parametrize("body", [b'{"images":[' + b"0," * 200_000 + b"0]}", b'{"x":[' + b"[]," * 200_000 + b"0]}"])
def test_json_of_millions_of_values_is_refused_unparsed(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("service.http.dialects.v1_bodies.RecognizeRequest")
    response = request(toy_runtime(), "POST", PATH, content=body, headers={"content-type": "application/json"})
    assert response.json()["type"] == errors.TOO_MANY_CROPS.type
    assert "PARSEQ_MAX_CROPS_PER_REQUEST" in response.json()["detail"]


def test_json_may_have_commas_in_its_texts() -> None:
    image = {
        "id": "," * 256,
        "content": "data:image/png;base64," + base64.b64encode(png_of("a")).decode(),
        "note": [1, 2, 3],
    }
    response = request(toy_runtime(), "POST", PATH, json={"images": [image] * 128})
    results = response.json()["results"]
    assert [result["text"] for result in results] == ["a"] * 128
