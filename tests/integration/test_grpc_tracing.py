"""Traces of calls over gRPC, by the collector's end of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest

from service import errors
from service.errors import Problem
from service.grpc.messages import CLASSES
from service.grpc.server_span import span_of
from service.http.head import Head
from tests.fakes import FakeSession, toy_runtime
from tests.grpc_calls import Caller, free_port, grpc_serving, request_of, with_parameters
from tests.otlp_receiver import Receiver, receiving, tracing_to, values
from tests.toy_artifact import png_of

NAME = "inference.GRPCInferenceService/ModelInfer"
TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TAKEN = ("traceparent", f"00-{TRACE_ID}-{PARENT}-01")
LEFT = ("traceparent", f"00-{TRACE_ID}-{PARENT}-00")
UNSET, ERROR = 0, 2
SERVER = 2
STAGES = ("decode", "queue", "inference")


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch, session: Any = None, sampler: str = "") -> Iterator[tuple[Caller, Receiver]]:
    with receiving() as collector:
        tracing = tracing_to(collector, monkeypatch, sampler)
        with grpc_serving(toy_runtime(session, tracing=tracing, grpc_port=free_port())) as caller:
            yield caller, collector


def test_a_call_has_the_spans_of_a_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service.http.request_observer")
    with traced(monkeypatch) as (caller, collector):
        metadata = [TAKEN, ("tracestate", "vendor=x"), ("host", "words.example:8001")]
        call = caller.start("ModelInfer", request_of(png_of("abc"), png_of("x1")), metadata=metadata)
        assert call.result()
        assert ("x-request-id", TRACE_ID) in call.trailing_metadata()
        spans = collector.wait_for(4)
        accept = {"accept": "application/openmetrics-text"}
        exemplified = httpx.get(f"{caller.url}/metrics", headers=accept).text
    assert spans.keys() == {NAME, *STAGES}
    server = spans[NAME]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    assert {span.trace_state for span in spans.values()} == {"vendor=x"}
    assert (server.kind, server.parent_span_id.hex(), server.status.code) == (SERVER, PARENT, UNSET)
    assert values(server.attributes) == {
        "rpc.system": "grpc",
        "rpc.system.name": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "rpc.response.status_code": "OK",
        "server.address": "words.example",
        "server.port": 8001,
        "parseq.crops": 2,
        "parseq.model": "toy",
        "parseq.outcome": "done",
    }
    assert {spans[name].parent_span_id for name in STAGES} == {server.span_id}
    starts = min(spans[name].start_time_unix_nano for name in STAGES)
    ends = max(spans[name].end_time_unix_nano for name in STAGES)
    assert server.start_time_unix_nano <= starts < ends <= server.end_time_unix_nano
    [line] = [record for record in caplog.records if NAME in record.getMessage()]
    assert line.getMessage().startswith(f"POST /{NAME}: 200 in ")
    [bucket] = [line for line in exemplified.splitlines() if "request_duration" in line and TRACE_ID in line]
    assert 'status="200"' in bucket


def test_only_inference_that_the_caller_or_the_sampler_takes_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    with traced(monkeypatch, sampler="parentbased_always_off") as (caller, collector):
        for metadata in ((), (LEFT,)):
            caller.infer(request_of(png_of("abc")), metadata=metadata)
        caller.call("ServerLive", metadata=[TAKEN])
        caller.call("ModelReady", CLASSES["ModelReadyRequest"](name="toy"), metadata=[TAKEN])
        caller.infer(request_of(png_of("abc")), metadata=[TAKEN])
        collector.wait_for(4)
    assert [span.name for span in collector.spans].count(NAME) == 1
    assert len(collector.spans) == 4


@pytest.mark.parametrize(
    ("request_", "code", "blamed", "stages"),
    [
        (request_of(b"junk"), grpc.StatusCode.INVALID_ARGUMENT, UNSET, {"decode"}),
        (request_of(b"x", model_name="nosuch"), grpc.StatusCode.NOT_FOUND, UNSET, set()),
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, UNSET, set()),
        (request_of(png_of("a", poisoned=True)), grpc.StatusCode.INTERNAL, ERROR, set(STAGES)),
    ],
)
def test_what_fails_is_the_servers_only_where_it_is_to_blame(
    request_: Any, code: grpc.StatusCode, blamed: int, stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced(monkeypatch) as (caller, collector):
        assert caller.refused(request_, metadata=[TAKEN]).code() is code
        spans = collector.wait_for(1 + len(stages))
    server = spans.pop(NAME)
    assert spans.keys() == stages
    attributes = values(server.attributes)
    assert (attributes["rpc.grpc.status_code"], attributes["rpc.response.status_code"]) == (code.value[0], code.name)
    assert (server.status.code, attributes.get("error.type")) == (blamed, code.name if blamed else None)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_call_that_ends_early_is_traced_to_its_end(cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    with traced(monkeypatch, session) as (caller, collector):
        session.gate.clear()
        request = with_parameters(request_of(png_of("a")), timeout=("int64_param", 10**8 if cancelled else 200_000))
        while session.entered.acquire(blocking=False):  # those of the warm-up
            pass
        call = caller.start("ModelInfer", request, metadata=[TAKEN])
        session.wait_entered()
        if cancelled:
            call.cancel()
        span = collector.wait_for(4)[NAME]
        session.gate.set()
    told = (values(span.attributes)["rpc.response.status_code"], values(span.attributes)["parseq.outcome"], span.status.code)
    assert told == (("CANCELLED", "cancelled", UNSET) if cancelled else ("DEADLINE_EXCEEDED", "expired", ERROR))


@pytest.mark.parametrize(
    ("problem", "code", "failed"),
    [
        (errors.QUEUE_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (errors.UNAUTHORIZED, grpc.StatusCode.UNAUTHENTICATED, False),
        (errors.NOT_READY, grpc.StatusCode.UNAVAILABLE, True),
        (errors.DEADLINE_EXPIRED, grpc.StatusCode.DEADLINE_EXCEEDED, True),
    ],
)
def test_codes_are_those_that_clients_see(problem: Any, code: grpc.StatusCode, failed: bool) -> None:
    head = Head({"method": "POST", "path": f"/{NAME}", "query_string": b"", "headers": []})
    span = span_of(head, Problem(problem, "x").status)
    assert (span.name, span.attributes["rpc.grpc.status_code"], span.failed) == (NAME, code.value[0], failed)
    assert "server.address" not in span.attributes
