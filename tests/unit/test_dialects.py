"""A protocol beside the service's own, made here: gates, admission, limits and counting are the same for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import errors
from service.core.crop_decoder import EncodedImage
from service.core.recognizer import CropResult
from service.core.runtime import Runtime
from service.core.served_model import ServedModel
from service.errors import Problem
from service.http.app import App
from service.http.bodies.body import Body
from service.http.dialects.dialect import Crops, Dialect
from service.http.dialects.v1 import V1
from service.http.head import Announcement, Count, Head
from service.http.problems import Answer
from tests.fakes import FakeSession, toy_runtime
from tests.toy_artifact import png_of

V1_PATH = "/v1/recognize"


class Toy(Dialect):
    """`POST /toy` or `/toy/{model}` with an image file, answered with the text."""

    paths = ("/toy", "/toy/{model}/read")

    def announce(self, head: Head) -> Announcement:
        return Announcement(Count.ONE, head.path.split("/")[2] if head.path.count("/") > 1 else None)

    async def parse(self, head: Head, body: Body) -> Crops:
        return Crops([EncodedImage(None, await body.read(1000))], head.checked_timeout_ms())

    async def answer(
        self, head: Head, crops: Crops, results: Sequence[CropResult], model: ServedModel, total_s: float
    ) -> Answer:
        reading = results[0].reading
        if isinstance(reading, Problem):
            raise reading
        return Answer(200, reading.text.encode(), "text/plain; charset=utf-8")

    def problem(self, problem: Problem) -> Answer:
        return Answer(problem.status, f"sorry: {problem.kind.slug}".encode(), "text/plain; charset=utf-8")


class Least(Dialect):
    """All that a dialect has to say."""

    paths = ("/least",)

    async def parse(self, head: Head, body: Body) -> Crops:
        return Crops([EncodedImage(None, await body.read())], timeout_ms=1000.0)

    async def answer(
        self, head: Head, crops: Crops, results: Sequence[CropResult], model: ServedModel, total_s: float
    ) -> Answer:
        return Answer(200, str(results[0].reading).encode(), "text/plain")


def with_dialects(runtime: Runtime, scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]) -> str:
    """Play a scenario; returns the metrics afterwards."""

    async def run() -> None:
        app = App(runtime, (V1(runtime.settings), Toy(), Least()))
        async with app.api.router.lifespan_context(app.api):
            await runtime.warmed_up()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                await scenario(client)

    asyncio.run(run())
    return runtime.metrics.render().decode()


@pytest.mark.parametrize("path", ["/toy", "/toy/toy/read"])
def test_a_dialect_reads_and_answers_in_its_own_way(path: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=png_of("word"), headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.text) == (200, "word")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["cache-control"] == "no-store"
        beside = await client.post(V1_PATH, content=png_of("word"), headers={"content-type": "image/png"})
        assert beside.json()["text"] == "word"

    text = with_dialects(toy_runtime(), scenario)
    assert 'parseq_request_duration_seconds_count{status="200"} 2.0' in text
    assert 'parseq_crops_total{model="toy",outcome="done"} 2.0' in text


def test_a_dialect_may_leave_nearly_all_to_others() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert "word" in (await client.post("/least", content=png_of("word"))).text
        answer = await client.post("/least", content=bytes(5000))
        assert answer.status_code == 413
        assert answer.json()["type"] == errors.BODY_TOO_LARGE.type

    with_dialects(toy_runtime(max_body_bytes=4096), scenario)


@pytest.mark.parametrize(
    ("method", "path", "options", "kind"),
    [
        ("POST", "/toy", {"content": b"junk"}, errors.UNREADABLE_IMAGE),
        ("POST", "/toy", {"content": bytes(1001)}, errors.BODY_TOO_LARGE),
        ("POST", "/toy", {"headers": {"x-request-timeout-ms": "soon"}}, errors.MALFORMED_REQUEST),
        ("POST", "/toy/other/read", {"content": png_of("a")}, errors.NOT_FOUND),
        ("GET", "/toy", {}, errors.METHOD_NOT_ALLOWED),
        ("GET", "/toy/toy/read", {}, errors.METHOD_NOT_ALLOWED),
    ],
)
def test_problems_are_worded_by_the_dialect_of_the_path(
    method: str, path: str, options: dict[str, Any], kind: errors.Kind
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path, **options)
        assert (answer.status_code, answer.text) == (kind.status, f"sorry: {kind.slug}")
        assert "x-request-id" in answer.headers

    assert f'parseq_problems_total{{problem="{kind.slug}"}} 1.0' in with_dialects(toy_runtime(), scenario)


def test_paths_of_nobody_are_nobodys() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/toy/", "/toy/a/b/read", "/toy/toy"):
            answer = await client.post(path, content=png_of("a"))
            assert answer.json()["type"] == errors.NOT_FOUND.type

    with_dialects(toy_runtime(), scenario)


def test_a_key_is_wanted_in_every_dialect(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a" * 16)

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/toy", content=png_of("a"))
        assert (answer.status_code, answer.text) == (401, "sorry: unauthorized")
        assert (await client.post("/toy", content=png_of("a"), headers={"x-api-key": "a" * 16})).text == "a"

    text = with_dialects(toy_runtime(api_keys_file=tmp_path / "keys"), scenario)
    assert 'parseq_request_duration_seconds_count{status="401"} 1.0' in text


def test_the_doorman_turns_away_in_the_words_of_the_dialect() -> None:
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=1, max_queue_wait_ms=500.0)

    async def scenario(client: httpx.AsyncClient) -> None:
        runtime.models.default.cost.seed({1: 2.0})
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        running = asyncio.ensure_future(client.post("/toy", content=png_of("a")))
        await asyncio.to_thread(session.wait_entered)
        try:
            answer = await client.post("/toy", content=png_of("b"))
            assert (answer.status_code, answer.text) == (429, "sorry: queue-full")
        finally:
            session.gate.set()
            assert (await running).text == "a"

    text = with_dialects(runtime, scenario)
    assert 'parseq_crops_refused_total{model="toy",reason="predicted_wait"} 1.0' in text
    assert 'parseq_problems_total{problem="queue-full"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="429"} 1.0' in text
