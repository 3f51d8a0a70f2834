"""The HTTP interface, against the app in this process and a fake session."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from pydantic import ValidationError

from service import errors
from service.core.crop_decoder import EncodedImage
from service.engine.decode_backlog import DecodeRequest
from service.errors import KINDS, ClientLeftError, Kind, Problem
from service.http.bodies.media_types import BINARY_TYPES
from service.http.dialects import v1_bodies as bodies
from service.http.dialects.v1_schemas import ModelList, ProblemDocument, Recognition, RecognitionList
from service.http.docs_page import render
from service.http.head import TIMEOUT_HEADER
from tests.fakes import FakeSession, LaneKilled, request, serving, toy_runtime, until, with_client
from tests.toy_artifact import CHARSET, METADATA, confidence_of, png_of
from tests.yardstick import costs_little

PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
PATIENT = {"request_timeout_ms": 60_000.0, "batch_timeout_ms": 60_000.0, "self_check_interval_s": 0}
"""Settings of a server on which a loaded machine changes nothing: no deadline passes, and only requests run the session."""


def post(runtime: Any = None, path: str = PATH, **options: Any) -> httpx.Response:
    return request(runtime or toy_runtime(), "POST", path, **options)


def expect_problem(response: httpx.Response, kind: Kind) -> ProblemDocument:
    assert response.headers["content-type"] == "application/problem+json"
    document = ProblemDocument.model_validate_json(response.content)
    assert (document.type, document.title) == (kind.type, kind.title)
    assert document.status == response.status_code == kind.status
    return document


def images(*contents: Any) -> dict[str, Any]:
    return {"images": [{"content": base64.b64encode(content).decode()} for content in contents]}


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/X-ANYTHING; q=1", *BINARY_TYPES, "Binary/Octet-Stream", None])
def test_a_raw_body_is_one_crop(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = post(content=png_of("hello7"), headers=headers)
    assert response.status_code == 200
    answer = Recognition.model_validate_json(response.content)
    assert (answer.text, answer.id, answer.model, answer.characters) == ("hello7", None, "toy", None)
    assert answer.confidence == pytest.approx(confidence_of("hello7"), abs=1e-6)
    assert set(response.json()) == {"text", "confidence", "model", "model_version", "timings"}


@pytest.mark.parametrize("path", ["/v1/recognize", "/recognize"])
def test_one_form_file_is_one_object(path: str) -> None:
    response = post(path=path, files={"anything": ("word.png", png_of("ab"))}, data={"note": "ignored"})
    answer = Recognition.model_validate_json(response.content)
    assert (answer.id, answer.text) == ("word.png", "ab")


def test_several_form_files_are_results_in_order() -> None:
    files = [("a", ("x.png", png_of("one"))), ("a", ("y.png", b"junk")), ("b", ("z.png", png_of("three")))]
    response = post(files=files)
    assert response.status_code == 200
    answer = RecognitionList.model_validate_json(response.content).model_dump()
    assert [result["id"] for result in answer["results"]] == ["x.png", "y.png", "z.png"]
    assert [result.get("text") for result in answer["results"]] == ["one", None, "three"]
    assert answer["results"][1]["error"]["type"] == errors.UNREADABLE_IMAGE.type


def test_json_images_are_results_in_order() -> None:
    body = images(png_of("one"), png_of("two"), b"junk")
    body["images"][1]["id"] = 17
    body["images"].append({"id": "x", "content": "***"})
    answer = RecognitionList.model_validate_json(post(json=body).content).model_dump()
    assert [result["id"] for result in answer["results"]] == ["0", "17", "2", "x"]
    assert [result.get("text") for result in answer["results"]] == ["one", "two", None, None]
    assert [result["error"]["status"] for result in answer["results"][2:]] == [422, 422]
    assert answer["results"][3]["error"]["type"] == errors.INVALID_BASE64.type


def test_a_json_request_of_one_image_is_still_a_list() -> None:
    assert [result["text"] for result in post(json=images(png_of("a"))).json()["results"]] == ["a"]


def test_characters_are_given_on_request_as_many_as_the_text_has() -> None:
    answer = Recognition.model_validate_json(post(path=PATH + "?characters=true", content=png_of("abc")).content)
    assert answer.characters is not None
    assert [item.char for item in answer.characters] == ["a", "b", "c"]
    assert all(item.confidence == pytest.approx(250 / 255, abs=1e-6) for item in answer.characters)
    results = post(path=PATH + "?characters=1", json=images(png_of("ab"), b"junk")).json()["results"]
    assert [char["char"] for char in results[0]["characters"]] == ["a", "b"]
    assert set(results[1]) == {"id", "error"}


def test_a_poisoned_crop_fails_alone() -> None:
    results = post(json=images(png_of("a"), png_of("b", poisoned=True), png_of("c"))).json()["results"]
    assert [result.get("text") for result in results] == ["a", None, "c"]
    assert results[1]["error"]["type"] == errors.INFERENCE_FAILED.type
    expect_problem(post(content=png_of("b", poisoned=True), headers=PNG), errors.INFERENCE_FAILED)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, errors.EMPTY_BODY),
        ({"content": b"", "headers": {"content-type": "application/json"}}, errors.EMPTY_BODY),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, errors.MALFORMED_REQUEST),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, errors.MALFORMED_REQUEST),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, errors.JSON_TOO_DEEP),
        ({"json": []}, errors.INVALID_REQUEST),
        ({"json": {"images": []}}, errors.INVALID_REQUEST),
        ({"json": {"images": [{"id": "x"}]}}, errors.INVALID_REQUEST),
        ({"json": {"images": [{"content": 5}]}}, errors.INVALID_REQUEST),
        ({"json": {"images": [{"content": "", "id": "x" * 257}]}}, errors.INVALID_REQUEST),
        ({"json": {"images": [{"content": "", "id": 10**30}]}}, errors.INVALID_REQUEST),
        ({"json": {"images": [{"content": "", "id": True}]}}, errors.INVALID_REQUEST),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, errors.MALFORMED_REQUEST),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, errors.MALFORMED_REQUEST),
        ({"content": b"--a\r\n\r\n", "headers": {"content-type": "multipart/form-data; boundary=a"}}, errors.MALFORMED_REQUEST),
        ({"content": b"--a--\r\n", "headers": {"content-type": "multipart/form-data; boundary=a"}}, errors.NO_FILE),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, errors.UNSUPPORTED_MEDIA_TYPE),
        ({"data": {"file": "x"}}, errors.UNSUPPORTED_MEDIA_TYPE),
        ({"content": b"junk", "headers": PNG}, errors.UNREADABLE_IMAGE),
        ({"content": b"%PDF-", "headers": PNG}, errors.UNSUPPORTED_IMAGE_FORMAT),
        ({"files": {"file": ("empty.png", b"")}}, errors.UNREADABLE_IMAGE),
        ({"content": b"x", "headers": PNG, "params": {"characters": "maybe"}}, errors.INVALID_REQUEST),
    ],
)
def test_bad_requests_get_the_right_problem(options: dict[str, Any], kind: Kind) -> None:
    expect_problem(post(**options), kind)


@pytest.mark.parametrize("id_", ["x" * 257, 2**53, -(2**53), 1.5, True, ["x"]])
def test_the_rule_for_ids_is_told_once(id_: Any) -> None:
    document = expect_problem(post(json={"images": [{"content": ""}, {"content": 5, "id": id_}]}), errors.INVALID_REQUEST)
    assert document.model_extra is not None
    told = {error["location"]: error["message"] for error in document.model_extra["errors"]}
    assert list(told) == ["images.1.id", "images.1.content"]
    assert "up to 256 characters" in told["images.1.id"]
    assert len(document.model_extra["errors"]) == 2


@pytest.mark.parametrize("id_", ["x" * 256, 2**53 - 1, -(2**53) + 1])
def test_the_longest_ids_come_back(id_: str | int) -> None:
    content = base64.b64encode(png_of("a")).decode()
    [result] = post(json={"images": [{"content": content, "id": id_}]}).json()["results"]
    assert (result["id"], result["text"]) == (str(id_), "a")


def test_limits_are_named_in_the_refusal() -> None:
    small = {"max_body_bytes": 4096, "max_crops_per_request": 2, "max_image_pixels": 4000}
    document = expect_problem(post(toy_runtime(**small), content=bytes(4097), headers=PNG), errors.BODY_TOO_LARGE)
    assert "4096" in document.detail
    assert "PARSEQ_MAX_BODY_BYTES" in document.detail
    document = expect_problem(post(toy_runtime(**small), json=images(b"", b"", b"")), errors.TOO_MANY_CROPS)
    assert "PARSEQ_MAX_CROPS_PER_REQUEST" in document.detail
    document = expect_problem(post(toy_runtime(**small), content=png_of("a"), headers=PNG), errors.IMAGE_TOO_LARGE)
    assert "PARSEQ_MAX_IMAGE_PIXELS" in document.detail


def test_a_body_without_a_length_is_measured_while_it_streams() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    expect_problem(post(toy_runtime(max_body_bytes=4096), content=endless(), headers=PNG), errors.BODY_TOO_LARGE)


@pytest.mark.parametrize("entry", [b"0", b'{"content":""}'])
def test_a_long_list_is_refused_before_its_entries_are_looked_at(entry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    explain = bodies.explain

    def counting(error: ValidationError, too_many: Problem) -> Any:
        told.append(error.error_count())
        return explain(error, too_many)

    monkeypatch.setattr(bodies, "explain", counting)
    body = b'{"images":[' + b",".join([entry] * 20_000) + b"]}"
    expect_problem(post(content=body, headers={"content-type": "application/json"}), errors.TOO_MANY_CROPS)
    short = b'{"images":[' + b",".join([b"0"] * 100) + b"]}"
    expect_problem(post(content=short, headers={"content-type": "application/json"}), errors.INVALID_REQUEST)
    assert told == [1, 1]


def test_forms_are_bounded_in_files_and_in_fields() -> None:
    runtime = toy_runtime(max_crops_per_request=2)
    files = [("file", (f"{index}.png", b"x")) for index in range(3)]
    expect_problem(post(runtime, files=files), errors.TOO_MANY_CROPS)
    fields = {f"field{index}": "x" for index in range(100)}
    response = post(files={"file": ("a.png", png_of("a"))}, data=fields | {"more": ["x"] * 100})
    assert "PARSEQ_MAX_FORM_FIELDS" in expect_problem(response, errors.TOO_MANY_FIELDS).detail


FORM = {"content-type": "multipart/form-data; boundary=cut"}
JSON = {"content-type": "application/json"}
PART = b'--cut\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n'


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (PART * 10_000 + b"--cut--", FORM, errors.TOO_MANY_CROPS),
        (PART.replace(b"; filename", b"; other") * 10_000 + b"--cut--", FORM, errors.TOO_MANY_FIELDS),
        (PART[:-3] + b"\r\n--cut\r" * 2_000_000 + b"\r\n--cut--", FORM, errors.MALFORMED_REQUEST),
        (b"--cut\r\n" + b"a" * 2**24, FORM, errors.MALFORMED_REQUEST),
        (b"--cut\r\n" + b"a:b\r\n" * 2**20, FORM, errors.MALFORMED_REQUEST),
        (b"x", {"content-type": "multipart/form-data; boundary=" + "c" * 71}, errors.MALFORMED_REQUEST),
        (b"[" * 2**23 + b"]" * 2**23, JSON, errors.JSON_TOO_DEEP),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON, errors.JSON_TOO_DEEP),
        (b"[]" * 2**23, JSON, errors.TOO_MANY_CROPS),
        (b"[" + b'""' * 2**22 + b"[]" * 100, JSON, errors.TOO_MANY_CROPS),
        (b'{"images":[{"content":"","id":' + b"9" * 2**23 + b"}]}", JSON, errors.MALFORMED_REQUEST),
        (b"1" * (2**24 + 1), JSON, errors.JSON_TOO_LARGE),
        (bytes(2**24 + 1), PNG, errors.IMAGE_FILE_TOO_LARGE),
        (b"x", PNG | {"content-encoding": "gzip"}, errors.UNSUPPORTED_MEDIA_TYPE),
    ],
    ids=[
        "files", "fields", "near-ends", "header", "headers", "boundary",
        "lists", "objects", "brackets", "quotes", "digits", "json", "image", "gzip",
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused_for_little(body: bytes, headers: dict[str, str], kind: Kind) -> None:
    runtime, started_s = toy_runtime(), time.process_time()
    expect_problem(post(runtime, content=body, headers=headers), kind)
    assert costs_little(started_s)


@pytest.mark.parametrize("depth", [32, 33])
def test_json_is_read_up_to_the_permitted_depth(depth: int) -> None:
    deep = b"[" * (depth - 3) + b"]" * (depth - 3)
    members = b'"content":"%b","more":' % base64.b64encode(png_of("ab"))
    body = b'{"images":[{%b%b}]}' % (members, deep)
    response = post(content=body, headers=JSON)
    if depth == 32:
        assert response.json()["results"][0]["text"] == "ab"
    else:
        assert "PARSEQ_MAX_JSON_DEPTH" in expect_problem(response, errors.JSON_TOO_DEEP).detail


def test_brackets_within_texts_do_not_count() -> None:
    image = {"id": '[[{"\\' * 50, "content": base64.b64encode(png_of("ab")).decode()}
    answer = post(json={"images": [image] * 100}).json()
    assert [result["text"] for result in answer["results"]] == ["ab"] * 100


def test_a_large_base64_text_fails_alone() -> None:
    whole = png_of("ab")
    answer = post(toy_runtime(max_image_bytes=len(whole)), json=images(whole, whole + b"x", bytes(3 * len(whole) + 2048)))
    texts = [result.get("text", result.get("error", {}).get("type")) for result in answer.json()["results"]]
    assert texts == ["ab", errors.IMAGE_FILE_TOO_LARGE.type, errors.IMAGE_FILE_TOO_LARGE.type]


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=cut"])
def test_a_refused_body_is_not_kept(content_type: str) -> None:
    """Not even until the garbage collector runs: many at once would be many times the limit."""
    runtime, body = toy_runtime(), b"[[[" + bytes(1000)

    async def scenario(client: httpx.AsyncClient) -> None:
        gc.collect()
        gc.disable()
        try:
            before = sum(type(thing) is Problem for thing in gc.get_objects())
            for _ in range(20):
                response = await client.post(PATH, content=body, headers={"content-type": content_type})
                assert 400 <= response.status_code < 500
            after = sum(type(thing) is Problem for thing in gc.get_objects())
        finally:
            gc.enable()
        assert after - before <= 1

    with_client(runtime, scenario)


def test_a_file_input_left_empty_is_no_file() -> None:
    files = [("a", ("", b"")), ("b", ("word.png", png_of("ab")))]
    assert post(files=files).json()["text"] == "ab"


def test_json_may_begin_with_a_byte_order_mark() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(images(png_of("ab"))).encode()
    answer = post(content=body, headers={"content-type": "application/json"}).json()
    assert answer["results"][0]["text"] == "ab"


def test_each_problem_is_counted_once() -> None:
    runtime = toy_runtime()

    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(PATH, content=b"junk", headers=PNG)
        await client.post(PATH, json=images(b"junk", b"junk"))
        assert 'parseq_problems_total{problem="unreadable-image"} 3.0' in (await client.get("/metrics")).text

    with_client(runtime, scenario)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1/models", "/livez", "/readyz", "/metrics"])
def test_head_is_get_without_a_body(path: str) -> None:
    runtime = toy_runtime()

    async def scenario(client: httpx.AsyncClient) -> None:
        head, whole = await client.head(path), await client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            if (path, name) != ("/metrics", "content-length"):  # which may grow in between
                assert head.headers[name] == whole.headers[name]
        refused = await client.request("DELETE", path)
        expect_problem(refused, errors.METHOD_NOT_ALLOWED)
        assert refused.headers["allow"] == "GET, HEAD"

    with_client(runtime, scenario)


def test_head_tells_of_errors_too() -> None:
    for path, status in ((PATH, 405), ("/nowhere", 404)):
        response = request(toy_runtime(), "HEAD", path)
        assert (response.status_code, response.content) == (status, b"")


def test_other_paths_and_methods_are_problems_too() -> None:
    expect_problem(request(toy_runtime(), "GET", "/nowhere"), errors.NOT_FOUND)
    response = request(toy_runtime(), "GET", PATH)
    expect_problem(response, errors.METHOD_NOT_ALLOWED)
    assert response.headers["allow"] == "POST"


def test_a_full_queue_refuses_with_retry_after_and_probes_still_answer() -> None:
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=1, max_queue_items=2, max_crops_per_request=2, **PATIENT)

    async def scenario(client: httpx.AsyncClient) -> None:
        runtime.models.default.cost.seed({1: 0.001})  # a slow warm-up would have requests refused for their predicted wait
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        running = asyncio.ensure_future(client.post(PATH, content=png_of("a"), headers=PNG))
        await asyncio.to_thread(session.wait_entered)
        waiting = asyncio.ensure_future(client.post(PATH, json=images(png_of("b"), png_of("c"))))
        await until(lambda: runtime.models.default.engine.depth == 2)
        refused = await client.post(PATH, content=png_of("d"), headers=PNG)
        expect_problem(refused, errors.QUEUE_FULL)
        assert int(refused.headers["retry-after"]) >= 1
        for probe in ("/livez", "/readyz", "/metrics", "/v1/models"):
            assert (await client.get(probe)).status_code == 200
        session.gate.set()
        assert (await running).json()["text"] == "a"
        assert [result["text"] for result in (await waiting).json()["results"]] == ["b", "c"]
        text = (await client.get("/metrics")).text
        assert 'parseq_crops_refused_total{model="toy",reason="queue_full"} 1.0' in text
        assert 'parseq_problems_total{problem="queue-full"} 1.0' in text
        assert 'parseq_request_duration_seconds_count{status="429"} 1.0' in text

    with_client(runtime, scenario)


def test_a_request_that_would_wait_too_long_is_refused_before_it_is_decoded() -> None:
    session = FakeSession()
    budgets = {"max_queue_wait_ms": 500.0, "max_batch_queue_wait_ms": 500.0}
    runtime = toy_runtime(session, max_batch_size=1, **budgets, **PATIENT)

    async def scenario(client: httpx.AsyncClient) -> None:
        runtime.models.default.cost.seed({1: 2.0})
        session.entered = threading.Semaphore(0)
        session.gate.clear()
        running = asyncio.ensure_future(client.post(PATH, content=png_of("a"), headers=PNG))  # a lane is free: let in
        await asyncio.to_thread(session.wait_entered)
        for refused, setting in (
            (await client.post(PATH, content=b"not an image", headers=PNG), "PARSEQ_MAX_QUEUE_WAIT_MS"),
            (await client.post(PATH, json=images(b"not", b"images")), "PARSEQ_MAX_BATCH_QUEUE_WAIT_MS"),
        ):
            expect_problem(refused, errors.QUEUE_FULL)
            assert setting in refused.json()["detail"]
            assert (
                refused.headers["retry-after"] == "5"
            )  # the run under way and its own take 4 s and a margin, 0.5 s are allowed
        text = (await client.get("/metrics")).text
        assert 'parseq_crops_refused_total{model="toy",reason="predicted_wait"} 2.0' in text  # the list was not read
        assert "parseq_predicted_wait_seconds 2.0" in text
        assert "parseq_crops_in_flight 1.0" in text
        session.gate.set()
        assert (await running).json()["text"] == "a"
        assert "parseq_crops_in_flight 0.0" in (await client.get("/metrics")).text

    with_client(runtime, scenario)


def test_the_deadline_is_answered_in_time_even_when_the_session_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    runtime = toy_runtime(session, request_timeout_ms=30.0, batch_timeout_ms=200.0, drain_timeout_s=60)

    def decode_at_once(request: DecodeRequest) -> None:
        """Before the deadline, however late a decode thread would get to it."""
        while request.jobs:
            request.jobs.popleft()(False)

    monkeypatch.setattr(runtime.models.default.recognizer._decode_pool, "submit", decode_at_once)

    async def scenario(client: httpx.AsyncClient) -> None:
        runtime.models.default.cost.seed({1: 1e-6})  # a slow warm-up would have the list refused for its predicted wait
        session.gate.clear()
        expect_problem(await client.post(PATH, content=png_of("a"), headers=PNG), errors.DEADLINE_EXPIRED)
        results = (await client.post(PATH, json=images(png_of("b"), b"junk"))).json()["results"]
        assert [result["error"]["status"] for result in results] == [504, 422]
        session.gate.set()

    with_client(runtime, scenario)
    text = runtime.metrics.render().decode()
    assert 'parseq_crops_total{model="toy",outcome="expired"} 2.0' in text
    assert 'parseq_crops_total{model="toy",outcome="failed"} 1.0' in text
    assert 'parseq_crops_admitted_total{model="toy"} 3.0' in text


def test_the_items_of_a_client_that_left_are_cancelled() -> None:
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=1)

    async def scenario(_client: httpx.AsyncClient) -> None:
        session.batches.clear()
        session.gate.clear()
        left = asyncio.Event()
        sources = [EncodedImage(None, png_of("a")), EncodedImage(None, png_of("b"))]
        asking = asyncio.ensure_future(runtime.models.default.recognizer.recognize(sources, 60.0, left.wait))
        await until(lambda: session.batches == [1] and runtime.models.default.engine.depth == 1)
        left.set()
        with pytest.raises(ClientLeftError):
            await asking
        session.gate.set()

    with_client(runtime, scenario)
    assert 'parseq_crops_total{model="toy",outcome="cancelled"} 2.0' in runtime.metrics.render().decode()
    assert session.batches == [1]  # the crop that was running: the other one never ran


def test_not_ready_before_the_warm_up_is_over() -> None:
    session = FakeSession()
    session.gate.clear()
    runtime = toy_runtime(session)

    async def scenario() -> None:
        async with serving(runtime, wait=False) as client:
            assert (await client.get("/livez")).status_code == 200
            expect_problem(await client.get("/readyz"), errors.NOT_READY)
            expect_problem(await client.post(PATH, content=png_of("a"), headers=PNG), errors.NOT_READY)
            session.gate.set()
            await runtime.warmed_up()
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            runtime.drain()
            expect_problem(await client.get("/readyz"), errors.NOT_READY)

    asyncio.run(scenario())


def test_a_drain_during_the_warm_up_stays_a_drain() -> None:
    session = FakeSession()
    session.gate.clear()
    runtime = toy_runtime(session)

    async def scenario() -> None:
        async with serving(runtime, wait=False):
            runtime.drain()
            session.gate.set()
            await runtime.warmed_up()
            assert not runtime.ready

    asyncio.run(scenario())


def test_a_failed_warm_up_is_told_in_one_line() -> None:
    session = FakeSession()

    def fail(_crops: Any) -> Any:
        raise RuntimeError("no kernel")

    session.answer = fail
    runtime = toy_runtime(session)
    told: list[str] = []
    runtime._on_failure = told.append
    expect_problem(request(runtime, "GET", "/readyz"), errors.NOT_READY)
    assert told == ["the artifact failed its warm-up: RuntimeError: no kernel"]


def test_a_dead_lane_fails_liveness_and_readiness() -> None:
    session = FakeSession()
    runtime = toy_runtime(session)

    def die(_crops: Any) -> Any:
        raise LaneKilled

    async def scenario(client: httpx.AsyncClient) -> None:
        session.answer = die
        expect_problem(await client.post(PATH, content=png_of("a"), headers=PNG), errors.NOT_READY)
        expect_problem(await client.get("/livez"), errors.NOT_ALIVE)
        expect_problem(await client.get("/readyz"), errors.NOT_READY)
        expect_problem(await client.post(PATH, content=png_of("a"), headers=PNG), errors.NOT_READY)

    with_client(runtime, scenario)


def test_an_unexpected_error_says_nothing_about_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("service.http.dialects.v1.recognition", broken)
    response = post(content=png_of("a"), headers=PNG)
    expect_problem(response, errors.INTERNAL)
    assert "secret" not in response.text
    assert "Zero" not in response.text


def test_a_model_that_names_columns_is_described_and_may_fill_them_all() -> None:
    columns = replace(METADATA, architecture="crnn", decode_mode="ctc")
    assert columns.schema_version == 2
    runtime = toy_runtime(metadata=columns)
    [model] = ModelList.model_validate_json(request(runtime, "GET", "/v1/models").content).models
    assert (model.decode_mode, model.refine_iters) == ("ctc", 0)
    text = CHARSET[: model.max_label_length]
    response = post(toy_runtime(metadata=columns), PATH + "?characters=1", content=png_of(text), headers=PNG)
    answer = Recognition.model_validate_json(response.content)
    assert answer.text == text
    # The end row, the blanks', counts too.
    assert answer.confidence == pytest.approx((250 / 255) ** (len(text) + 1), abs=1e-6)
    assert answer.characters is not None
    assert [item.char for item in answer.characters] == list(text)
    assert 'decode_mode="ctc"' in request(toy_runtime(metadata=columns), "GET", "/metrics").text


def test_the_model_and_its_limits_are_published() -> None:
    response = request(toy_runtime(), "GET", "/v1/models")
    [model] = ModelList.model_validate_json(response.content).models
    assert (model.name, model.charset, model.max_label_length) == ("toy", CHARSET, 25)
    assert (model.image_height, model.image_width, model.provider) == (32, 128, "cpu")
    assert (model.version, model.aliases) == ("0" * 12, [])
    assert model.limits.max_crops_per_request == 128
    assert model.limits.max_image_pixels == 2**22
    assert model.limits.image_formats == "jpeg,png,webp,bmp,gif,tiff"


def test_requests_share_batches_while_the_lane_is_busy() -> None:
    session = FakeSession()
    runtime = toy_runtime(session, max_batch_size=8)

    async def scenario(client: httpx.AsyncClient) -> None:
        session.batches.clear()
        session.gate.clear()
        texts = [f"w{index}" for index in range(60)]
        posts = [asyncio.ensure_future(client.post(PATH, content=png_of(text), headers=PNG)) for text in texts]
        await until(lambda: sum(session.batches) + runtime.models.default.engine.depth == 60)
        session.gate.set()
        assert [(await post).json()["text"] for post in posts] == texts

    with_client(runtime, scenario)
    assert sum(session.batches) == 60
    assert session.batches[1:-1] == [runtime.models.default.cost.cap] * (len(session.batches) - 2)


def test_the_openapi_covers_every_body_and_every_status() -> None:
    document = request(toy_runtime(), "GET", "/openapi.json").json()
    of_v2 = {
        "", "/health/live", "/health/ready", "/models/{name}", "/models/{name}/ready", "/models/{name}/infer",
        "/models/{name}/versions/{version}", "/models/{name}/versions/{version}/ready", "/repository/index",
    }  # fmt: skip
    of_v1 = {"/v1/recognize", "/v1/regions", "/v1/models", "/v1/models/{name}/charset"}
    assert set(document["paths"]) == {*of_v1, "/livez", "/readyz", "/metrics", *(f"/v2{path}" for path in of_v2)}
    operation = document["paths"][PATH]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "image/*",
        *BINARY_TYPES,
        "multipart/form-data",
        "application/json",
    }
    [one, several] = operation["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    assert [one["$ref"], several["$ref"]] == ["#/components/schemas/Recognition", "#/components/schemas/RecognitionList"]
    # What tells them apart: neither may have what the other one must have.
    schemas = document["components"]["schemas"]
    assert not schemas["Recognition"]["additionalProperties"]
    assert not schemas["RecognitionList"]["additionalProperties"]
    assert {"text"} <= set(schemas["Recognition"]["required"]) - set(schemas["RecognitionList"]["properties"])
    assert {"results"} <= set(schemas["RecognitionList"]["required"]) - set(schemas["Recognition"]["properties"])
    expected = {"200", "400", "401", "404", "408", "409", "413", "415", "422", "429", "431", "500", "501", "503", "504"}
    assert set(operation["responses"]) == expected
    for status, answer in operation["responses"].items():
        media_type = "application/json" if status == "200" else "application/problem+json"
        assert set(answer["content"]) == {media_type}
    known = set(document["components"]["schemas"])
    used = set(_references(document))
    assert used <= known
    assert {"Recognition", "RecognitionList", "RecognizeRequest", "RegionsRequest", "ProblemDocument", "ModelList"} <= used
    parameters = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
    assert parameters == {
        ("query", "alternatives"),
        ("query", "characters"),
        ("query", "charset"),
        ("query", "list"),
        ("query", "orientation"),
        ("query", "split"),
        ("query", "model"),
        ("header", TIMEOUT_HEADER),
        ("header", "X-Request-Id"),
        ("header", "traceparent"),
    }
    for path in document["paths"].values():
        for described in path.values():
            assert all("X-Request-Id" in answer["headers"] for answer in described["responses"].values())
    assert "Server-Timing" in operation["responses"]["200"]["headers"]
    assert {kind.status for kind in KINDS} - {405} <= {int(status) for status in operation["responses"]}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else []
        return own + [name for value in node.values() for name in _references(value)]
    return [name for value in node for name in _references(value)] if isinstance(node, list) else []


def test_everything_is_found_below_a_path_of_a_gateway() -> None:
    """It strips that path, and says nothing of it."""
    runtime = toy_runtime()

    async def scenario(client: httpx.AsyncClient) -> None:
        [server] = (await client.get("/openapi.json")).json()["servers"]
        assert urljoin("https://host/ocr/openapi.json", server["url"]) == "https://host/ocr/"
        page = (await client.get("/docs")).text
        links = re.findall(r"""(?:href|src|action)=["']?([^"' >]+)""", page)
        found = {urljoin("https://host/ocr/docs", link).partition("#")[0] for link in links}
        paths = (
            "docs",
            "",
            "openapi.json",
            "v1/models",
            "livez",
            "readyz",
            "metrics",
            "v2",
            "v2/health/live",
            "v2/health/ready",
        )
        assert found == {f"https://host/ocr/{path}" for path in paths}
        # Where the gateway passes on "/ocr" itself, only the page can know how it was asked for.
        assert 'base.href = location.origin + location.pathname + "/"' in (await client.get("/")).text

    with_client(runtime, scenario)


def test_the_docs_page_tells_everything_and_loads_nothing() -> None:
    response = request(toy_runtime(), "GET", "/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    page = response.text
    assert "://" not in page
    assert "<script" not in page
    document = request(toy_runtime(), "GET", "/openapi.json").json()
    names = [*document["paths"], *document["components"]["schemas"], *BINARY_TYPES, TIMEOUT_HEADER, "characters", "list"]
    members = [member for schema in document["components"]["schemas"].values() for member in schema.get("properties", ())]
    assert [name for name in (*names, *members) if name not in page] == []
    ids = re.findall(r" id='([^']+)'", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href='#([^']+)'", page)) <= set(ids)


def test_texts_of_the_description_are_no_markup() -> None:
    operation = {"operationId": "o", "summary": "<b>", "responses": {"200": {"description": "`<i>` & <u>"}}}
    document = {
        "info": {"title": "<script>", "version": "1"},
        "paths": {"/<a>": {"get": operation}},
        "components": {"schemas": {"Free": {"type": "object"}, "Any": {}}},
    }
    page = render(document)
    assert not [tag for tag in ("<b>", "<i>", "<u>", "<script", "/<a>") if tag in page]
    assert "<code>&lt;i&gt;</code> &amp; &lt;u&gt;" in page


@pytest.mark.parametrize("wish", ["list=true", "list=1&characters=false"])
def test_a_list_is_answered_to_those_who_ask(wish: str) -> None:
    path, content = f"{PATH}?{wish}", png_of("ab")
    for options, id_ in (
        ({"content": content, "headers": PNG}, "0"),
        ({"files": {"f": ("word.png", content)}}, "word.png"),
        ({"files": {"f": (None, content)}}, "0"),
        ({"json": images(content)}, "0"),
    ):
        answer = RecognitionList.model_validate_json(post(path=path, **options).content).model_dump()
        assert [(result["id"], result["text"]) for result in answer["results"]] == [(id_, "ab")]
    failed = post(path=path, content=b"junk", headers=PNG)
    assert failed.status_code == 200
    [result] = failed.json()["results"]
    assert (result["id"], result["error"]["type"]) == ("0", errors.UNREADABLE_IMAGE.type)


def test_no_list_is_answered_to_those_who_do_not_ask() -> None:
    assert post(path=f"{PATH}?list=false", content=png_of("ab"), headers=PNG).json()["text"] == "ab"
    assert len(post(path=f"{PATH}?list=false", json=images(png_of("ab"))).json()["results"]) == 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("lexicon=x", "`lexicon`"),
        ("Characters=true", "`Characters`"),
        ("characters=true&LIST=true", "`LIST`"),
        ("characters%20=true", "`characters `"),
        ("=x", "``"),
        ("a&b&a&c&d", "`a`, `b`, `c`"),
        ("characters=true&characters=false", "`characters`"),
        ("list=0&list=1", "`list`"),
        ("model=toy&model=other", "`model`"),
        ("%FF=%FF", "`"),
        ("x" * 10_000, "x" * 40 + "`"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/recognize", "/recognize"])
def test_a_query_that_cannot_be_meant_is_told(path: str, query: str, told: str) -> None:
    runtime = toy_runtime()
    detail = expect_problem(
        post(runtime, path=f"{path}?{query}", content=png_of("a"), headers=PNG), errors.INVALID_QUERY
    ).detail
    assert told in detail
    assert len(detail) < 300
    assert "twice" in detail or "characters, list, model, orientation, split, alternatives, charset" in detail
    assert 'parseq_crops_admitted_total{model="toy"} 0.0' in runtime.metrics.render().decode()


@pytest.mark.parametrize("query", ["", "?", "?characters=true&characters=1", "?&list=no&"])
def test_a_query_that_says_the_same_twice_is_fine(query: str) -> None:
    assert post(path=PATH + query, content=png_of("a"), headers=PNG).json()["text"] == "a"


def test_several_apps_live_side_by_side() -> None:
    async def scenario() -> None:
        async with serving(toy_runtime()) as one, serving(toy_runtime()) as other:
            assert (await one.post(PATH, content=png_of("a"), headers=PNG)).json()["text"] == "a"
            assert 'parseq_crops_admitted_total{model="toy"} 0.0' in (await other.get("/metrics")).text

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PATH), ("GET", "/v1/models"), ("GET", "/"), ("GET", "/nowhere"), ("GET", PATH)]
)
def test_every_answer_is_guarded(method: str, path: str) -> None:
    answer = request(toy_runtime(), method, path, content=png_of("a") if method == "POST" else None)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]
