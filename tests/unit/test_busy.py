"""Refusals by the headers alone."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service import errors
from service.core.runtime import Runtime
from service.errors import Kind
from service.http.app import App
from service.http.head import HEAD_KEY, TIMEOUT_HEADER, Head
from tests.fakes import FakeSession, serving, toy_runtime
from tests.toy_artifact import png_of

PATH = "/v1/recognize"
RUN_S = 2.0
WAIT_MS = 500.0
"""Shorter than a run: while one lasts, nothing is let in."""
FORM, JSON = "multipart/form-data; boundary=x", "application/json"


class Request:
    """A request with a `body`, or one whose body never comes: asking for that is an error."""

    def __init__(self, body: bytes | None = None, **headers: str) -> None:
        given = {"content-type": "image/png", "content-length": "5000"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        pairs = [(name.encode(), value.encode()) for name, value in given.items() if value]
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": pairs}
        self.sent: list[Any] = []
        self._body = body
        self._body_given = False

    async def receive(self) -> Any:
        assert self._body is not None, "the body was asked for"
        if self._body_given:
            await asyncio.Event().wait()  # the client stays
        self._body_given = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def to(self, app: App) -> Request:
        await app(self.scope, self.receive, self.send)
        return self

    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    def expect(self, kind: Kind) -> dict[str, Any]:
        start, body = self.sent
        document = json.loads(body["body"])
        assert start["status"] == document["status"] == kind.status
        assert (document["type"], document["title"]) == (kind.type, kind.title)
        assert int(self.headers()[b"content-length"]) == len(body["body"])
        assert self.headers()[b"content-type"] == b"application/problem+json"
        return dict(document)


def while_busy(scenario: Callable[[App], Awaitable[Any]], **settings: Any) -> Runtime:
    """Play a scenario while the only lane is in a run of `RUN_S`, by its own account."""
    session = FakeSession()
    budgets = {"max_queue_wait_ms": WAIT_MS, "max_batch_queue_wait_ms": WAIT_MS}
    runtime = toy_runtime(session, max_batch_size=1, **{**budgets, **settings})

    async def run() -> None:
        async with serving(runtime) as client:
            runtime.models.default.cost.seed({1: RUN_S})
            session.entered = threading.Semaphore(0)
            session.gate.clear()
            running = asyncio.ensure_future(client.post(PATH, content=png_of("a"), headers={"content-type": "image/png"}))
            await asyncio.to_thread(session.wait_entered)
            try:
                await scenario(App(runtime))
            finally:
                session.gate.set()
                await running

    asyncio.run(run())
    return runtime


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "", FORM, JSON])
def test_a_busy_server_says_so_before_the_body_is_read(content_type: str) -> None:
    async def scenario(app: App) -> None:
        request = await Request(content_type=content_type, x_request_id="mine").to(app)
        detail = request.expect(errors.QUEUE_FULL)["detail"]
        assert re.search(r"wait 2000 ms.* PARSEQ_MAX_(BATCH_)?QUEUE_WAIT_MS .*again in 5 s", detail)
        assert request.headers()[b"retry-after"] == b"5"
        assert request.headers()[b"x-request-id"] == b"mine"
        assert b"connection" not in request.headers()

    text = while_busy(scenario).metrics.render().decode()
    assert 'parseq_crops_refused_total{model="toy",reason="predicted_wait"} 1.0' in text
    assert 'parseq_problems_total{problem="queue-full"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="429"} 1.0' in text
    assert 'parseq_crops_admitted_total{model="toy"} 1.0' in text  # the one that keeps the lane busy


def test_an_early_refusal_is_the_one_that_admission_would_give() -> None:
    answers: list[tuple[Any, dict[bytes, bytes]]] = []

    async def scenario(app: App) -> None:
        for early in (True, False):
            request = Request(png_of("a"), x_request_id="mine")
            if not early:
                app._gates = app._gates[:-1]  # without the doorman
            await request.to(app)
            answers.append((request.expect(errors.QUEUE_FULL), request.headers()))

    while_busy(scenario)
    assert answers[0] == answers[1]


def test_a_full_queue_is_a_reason_too() -> None:
    async def scenario(app: App) -> None:
        waiting = asyncio.ensure_future(Request(png_of("b")).to(app))
        await asyncio.sleep(0)  # it is let in, and takes the only slot
        assert "PARSEQ_MAX_QUEUE_ITEMS" in (await Request().to(app)).expect(errors.QUEUE_FULL)["detail"]
        waiting.cancel()
        await waiting

    budgets = {"max_queue_wait_ms": 60_000.0, "request_timeout_ms": 60_000.0}
    text = while_busy(scenario, max_queue_items=1, max_crops_per_request=1, **budgets).metrics.render().decode()
    assert 'parseq_crops_refused_total{model="toy",reason="queue_full"} 1.0' in text


def test_a_client_that_asks_before_it_sends_loses_its_connection() -> None:
    async def scenario(app: App) -> None:
        request = await Request(expect="100-continue").to(app)
        request.expect(errors.QUEUE_FULL)
        assert request.headers()[b"connection"] == b"close"

    while_busy(scenario)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"content_type": "text/plain"}, errors.UNSUPPORTED_MEDIA_TYPE),
        ({"content_length": "99999999999"}, errors.BODY_TOO_LARGE),
        ({"content_length": "0"}, errors.EMPTY_BODY),
        ({"content_length": ""}, errors.EMPTY_BODY),
        ({TIMEOUT_HEADER.lower(): "soon"}, errors.MALFORMED_REQUEST),
    ],
)
def test_wrong_headers_are_told_also_by_a_busy_server(headers: dict[str, str], kind: Kind) -> None:
    async def scenario(app: App) -> None:
        (await Request(b"", **headers).to(app)).expect(kind)

    while_busy(scenario)


@pytest.mark.parametrize("wait_setting", ["max_queue_wait_ms", "max_batch_queue_wait_ms"])
@pytest.mark.parametrize("content_type", [FORM, JSON])
def test_a_body_of_unknown_size_is_read_while_some_size_could_be_let_in(wait_setting: str, content_type: str) -> None:
    async def scenario(app: App) -> None:
        (await Request(b"not valid", content_type=content_type).to(app)).expect(errors.MALFORMED_REQUEST)

    while_busy(scenario, **{wait_setting: 60_000.0, "request_timeout_ms": 60_000.0})


def test_the_clients_own_time_out_counts() -> None:
    async def scenario(app: App) -> None:
        (await Request(x_request_timeout_ms="100").to(app)).expect(errors.QUEUE_FULL)
        (await Request(b"", x_request_timeout_ms="50000").to(app)).expect(errors.EMPTY_BODY)

    while_busy(scenario, max_queue_wait_ms=60_000.0, request_timeout_ms=60_000.0)


def test_a_refusal_is_logged_for_debugging_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: App) -> None:
        for level in (logging.INFO, logging.DEBUG):
            caplog.set_level(level, "service.http.gates.doorman")
            await Request().to(app)

    while_busy(scenario)
    [line] = [record for record in caplog.records if record.name == "service.http.gates.doorman"]
    assert line.levelno == logging.DEBUG
    assert "/v1/recognize: 429" in line.getMessage()


def test_an_api_key_tells_clients_apart_and_an_address_where_none_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{'a' * 16}\n{'b' * 16}\n")

    def client_of(runtime: Runtime, address: str, **headers: str) -> object:
        request = from_address(Request(png_of("a"), **headers), address)
        request.scope["path"] = "/recognize"
        head = request.scope[HEAD_KEY] = Head(request.scope)
        asyncio.run(App(runtime)(request.scope, request.receive, request.send))  # type: ignore[arg-type]
        return head.client

    keyed, open_to_all = toy_runtime(api_keys_file=tmp_path / "keys"), toy_runtime(trusted_proxies="10.0.0.0/8")
    first, again, second = (client_of(keyed, address, x_api_key=key * 16) for address, key in ("1a", "2a", "1b"))
    assert first == again != second
    assert client_of(keyed, "1", x_api_key="c" * 16) is None
    assert client_of(open_to_all, "192.0.2.1") == client_of(open_to_all, "10.0.0.1", x_forwarded_for="192.0.2.1") == "192.0.2.1"
    assert client_of(open_to_all, "192.0.2.1", x_forwarded_for="192.0.2.7") == "192.0.2.1"


def from_address(request: Request, address: str) -> Request:
    request.scope["client"] = (address, 50000)
    return request


@pytest.mark.parametrize("content_type", ["image/png", FORM, JSON])
def test_who_holds_all_places_is_told_so_and_somebody_else_is_let_in(content_type: str) -> None:
    async def scenario(app: App) -> None:
        hog = [asyncio.ensure_future(from_address(Request(png_of("b")), "10.0.0.1").to(app)) for _ in range(4)]
        await asyncio.sleep(0)
        full = await from_address(Request(content_type=content_type), "10.0.0.1").to(app)
        assert "PARSEQ_MAX_QUEUE_ITEMS" in full.expect(errors.QUEUE_FULL)["detail"]
        modest = asyncio.ensure_future(from_address(Request(png_of("c")), "10.0.0.2").to(app))
        await asyncio.sleep(0)
        told = await from_address(Request(content_type=content_type), "10.0.0.1").to(app)
        assert "this client has used its share" in told.expect(errors.QUEUE_FULL)["detail"]
        for waiting in [*hog, modest]:
            assert not waiting.done()
            waiting.cancel()
            await waiting

    budgets = {
        "max_queue_wait_ms": 60_000.0, "request_timeout_ms": 60_000.0,
        "max_batch_queue_wait_ms": 60_000.0, "batch_timeout_ms": 60_000.0,
    }  # fmt: skip
    text = while_busy(scenario, max_queue_items=4, max_crops_per_request=4, **budgets).metrics.render().decode()
    assert 'parseq_crops_refused_total{model="toy",reason="client_share"} 1.0' in text
    assert 'parseq_crops_refused_total{model="toy",reason="queue_full"} 1.0' in text
    assert 'parseq_crops_admitted_total{model="toy"} 6.0' in text


def test_a_client_waits_for_its_own_and_not_for_all_that_others_have() -> None:
    async def scenario(app: App) -> None:
        hog = [asyncio.ensure_future(from_address(Request(png_of("b")), "10.0.0.1").to(app)) for _ in range(3)]
        await asyncio.sleep(0)
        late = await from_address(Request(), "10.0.0.1").to(app)
        assert "PARSEQ_MAX_QUEUE_WAIT_MS" in late.expect(errors.QUEUE_FULL)["detail"]
        modest = asyncio.ensure_future(from_address(Request(png_of("c")), "10.0.0.2").to(app))
        await asyncio.sleep(0)
        for waiting in [*hog, modest]:
            assert not waiting.done()
            waiting.cancel()
            await waiting

    # Three of the hog's and what runs take 8 s before the fourth begins; the other's comes after one of them.
    while_busy(scenario, max_queue_wait_ms=10_900.0, request_timeout_ms=60_000.0)
