from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.http.gates.request_ids import MAX_REQUEST_ID_LENGTH, context_of
from service.process.logs import CONTEXT_KEY, FORMAT, RequestFormatter
from service.process.request import RequestContext, current_request
from tests.fakes import request, toy_runtime, with_client
from tests.toy_artifact import png_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT}-01"
PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
MADE = re.compile("[0-9a-f]{32}")


def context(**headers: str) -> RequestContext:
    return context_of([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()])


@pytest.mark.parametrize("given", ["a", "req-17/b?c={d}~", "!" * MAX_REQUEST_ID_LENGTH])
def test_a_sane_id_is_kept(given: str) -> None:
    assert context(x_request_id=given) == RequestContext(given)


@pytest.mark.parametrize("given", ["", "two words", "tab\there", "line\nfeed", "caf\xe9", "x" * (MAX_REQUEST_ID_LENGTH + 1)])
def test_an_id_that_is_not_sane_is_replaced(given: str) -> None:
    made = context(x_request_id=given).request_id
    assert MADE.fullmatch(made)
    assert made != context(x_request_id=given).request_id


@pytest.mark.parametrize(
    "traceparent",
    [
        TRACEPARENT,
        f"00-{TRACE_ID}-{PARENT}-00",
        f"00-{TRACE_ID}-{PARENT}-ff",
        f" {TRACEPARENT}\t",
        f"cc-{TRACE_ID}-{PARENT}-01",  # a version to come, with and without what it may add
        f"cc-{TRACE_ID}-{PARENT}-01-what-the-future-will-be-like",
    ],
)
def test_the_trace_id_of_a_valid_traceparent_is_the_default_id(traceparent: str) -> None:
    assert context(traceparent=traceparent) == RequestContext(TRACE_ID, TRACE_ID, PARENT)
    assert context(traceparent=traceparent, x_request_id="mine") == RequestContext("mine", TRACE_ID, PARENT)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "rubbish",
        f"00-{TRACE_ID}-{PARENT}",
        f"00-{TRACE_ID}-{PARENT}-1",
        f"00-{TRACE_ID}-{PARENT}-01-more",
        f"00-{TRACE_ID}-{PARENT}-01-",
        f"cc-{TRACE_ID}-{PARENT}-01.more",
        f"ff-{TRACE_ID}-{PARENT}-01",
        f"00-{TRACE_ID.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{PARENT}-0g",
        f"00_{TRACE_ID}_{PARENT}_01",
    ],
)
def test_a_traceparent_that_is_not_valid_is_ignored(traceparent: str) -> None:
    found = context(traceparent=traceparent)
    assert found.trace_id is None
    assert found.request_id != TRACE_ID


def test_two_traceparents_are_none() -> None:
    header = (b"traceparent", TRACEPARENT.encode())
    assert context_of([header, header]).trace_id is None


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", PATH, {"content": png_of("a"), "headers": PNG}, 200),
        ("POST", PATH, {"content": b"junk", "headers": PNG}, 422),
        ("POST", PATH, {}, 400),
        ("POST", PATH, {"content": bytes(5000), "headers": PNG}, 413),
        ("GET", PATH, {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/livez", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/", {}, 200),
    ],
)
def test_every_answer_carries_the_id(method: str, path: str, options: dict[str, Any], status: int) -> None:
    headers = {**options.get("headers", {}), "x-request-id": "mine"}
    response = request(toy_runtime(max_body_bytes=4096), method, path, **{**options, "headers": headers})
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["mine"]


def test_requests_without_an_id_get_different_ones() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        ids = {(await client.get("/livez")).headers["x-request-id"] for _ in range(3)}
        assert len(ids) == 3
        assert all(MADE.fullmatch(made) for made in ids)

    with_client(toy_runtime(), scenario)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the service's own handler writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RequestFormatter(FORMAT))
    root, own = logging.getLogger(), logging.getLogger("service")
    levels = root.level, own.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    own.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def lines_about(log: io.StringIO, word: str) -> list[str]:
    return [line for line in log.getvalue().splitlines() if word in line]


def test_log_lines_about_a_request_carry_its_ids(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any) -> Any:
        raise ZeroDivisionError

    headers = {**PNG, "x-request-id": "mine", "traceparent": TRACEPARENT}
    about = f"[request_id=mine trace_id={TRACE_ID}]"
    request(toy_runtime(), "POST", PATH, content=png_of("a", poisoned=True), headers=headers)
    [line] = lines_about(log, "no text for a crop")
    assert about in line
    [line] = lines_about(log, f"POST {PATH}: 500 in")
    assert about in line
    monkeypatch.setattr("service.http.dialects.v1.recognition", broken)
    request(toy_runtime(), "POST", PATH, content=png_of("a"), headers=headers)
    [line] = lines_about(log, "a request failed")
    assert about in line


def test_log_lines_of_decode_threads_carry_the_id_too(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def broken(*_args: Any) -> Any:
        threads.append(threading.current_thread().name)
        raise ZeroDivisionError

    monkeypatch.setattr("service.core.crop_decoder.fit_for", broken)
    headers = {"x-request-id": "mine"}
    response = request(toy_runtime(), "POST", PATH, files=[("a", png_of("a")), ("b", png_of("b"))], headers=headers)
    assert [result["error"]["status"] for result in response.json()["results"]] == [500, 500]
    assert {name.rpartition("-")[0] for name in threads} == {"decode-image"}
    lines = lines_about(log, "preprocessing failed")
    assert len(lines) == 2
    assert all("[request_id=mine]" in line for line in lines)


def test_other_log_lines_carry_none(log: io.StringIO) -> None:
    token = current_request.set(None)
    logging.getLogger("service").info("just so")
    logging.getLogger("service").info("for another", extra={CONTEXT_KEY: RequestContext("x")})
    current_request.reset(token)
    [plain] = lines_about(log, "just so")
    assert plain.endswith("INFO service: just so")
    [other] = lines_about(log, "for another")
    assert other.endswith("INFO service: [request_id=x] for another")
