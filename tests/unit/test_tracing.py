"""Traces of requests, from the sampler to what a collector receives."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from service import errors
from service.errors import Problem
from service.http.dialects.dialect import NOTHING_ANNOUNCED
from service.http.gates.request_ids import RequestIds, context_of
from service.http.head import Head
from service.tracing.sampling import DEFAULT_RATIO, sampler_of
from service.tracing.tracing import EXTRA, Tracing, open_tracing
from tests.fakes import FakeSession, toy_runtime, with_client
from tests.open_inference import INFER, files
from tests.otlp_receiver import Receiver, receiving, set_environment, tracing_to, values
from tests.toy_artifact import png_of

PATH = "/v1/recognize"
PNG = {"content-type": "image/png"}
TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TAKEN = f"00-{TRACE_ID}-{PARENT}-01"
LEFT = f"00-{TRACE_ID}-{PARENT}-00"
OK, ERROR = 0, 2
"""Statuses of a span; 0 is unset."""
INTERNAL, SERVER = 1, 2
"""Kinds of spans."""
SPANS_OF_ONE = 4

Ask = Callable[[httpx.AsyncClient], Any]


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library reads itself."""
    set_environment(monkeypatch)


def serve(tracing: Tracing, ask: Ask, session: Any = None, **settings: Any) -> str:
    """Ask a server that traces, stop it, and return its metrics."""
    runtime = toy_runtime(session, tracing=tracing, **settings)
    with_client(runtime, ask)
    return runtime.metrics.render().decode()


def post(content: bytes = png_of("word"), **headers: str) -> Ask:
    return lambda client: client.post(PATH, content=content, headers={**PNG, **headers})


def ended(metrics: str, outcome: str) -> float:
    [line] = [line for line in metrics.splitlines() if line.startswith(f'parseq_trace_spans_total{{outcome="{outcome}"}}')]
    return float(line.split()[-1])


# -- Which requests are traced -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "root", "taken", "left"),
    [
        ("", False, True, False),
        ("parentbased_traceidratio", False, True, False),
        ("parentbased_always_on", True, True, False),
        ("Parentbased_Always_Off", False, True, False),
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("traceidratio", False, False, False),
        ("jaeger_remote", False, True, False),
    ],
)
def test_samplers_are_those_of_opentelemetry(name: str, root: bool, taken: bool, left: bool) -> None:
    sampler = sampler_of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.25"})
    unlucky, lucky = "0" * 16 + "4" + "0" * 15, "f" * 16 + "3" + "f" * 15
    assert [sampler.takes(unlucky, caller) for caller in (None, True, False)] == [root, taken, left]
    if "ratio" in name or not name:
        assert sampler.takes(lucky, None)


@pytest.mark.parametrize("given", ["", "x", "-1", "1.5", "nan", "inf"])
def test_a_ratio_that_makes_no_sense_is_the_default(given: str, caplog: pytest.LogCaptureFixture) -> None:
    assert sampler_of({"OTEL_TRACES_SAMPLER_ARG": given}) == sampler_of({"OTEL_TRACES_SAMPLER_ARG": str(DEFAULT_RATIO)})
    assert [given in line for line in caplog.messages] == ([True] if given else [])


def test_of_those_nobody_decided_about_one_in_a_hundred_is_traced() -> None:
    sampler = sampler_of({})
    n_traced = sum(context_of([], sampler).trace is not None for _ in range(20_000))
    assert 100 < n_traced < 300  # seven standard deviations


@pytest.mark.parametrize(
    ("sampler", "traceparent", "traced"),
    [
        ("", TAKEN, True),
        ("", LEFT, False),
        ("", f"cc-{TRACE_ID}-{PARENT}-03-more", True),
        ("always_on", LEFT, True),
        ("always_off", TAKEN, False),
    ],
)
def test_the_caller_decides_unless_told_otherwise(sampler: str, traceparent: str, traced: bool) -> None:
    headers = [(b"traceparent", traceparent.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    context = context_of(headers, sampler_of({"OTEL_TRACES_SAMPLER": sampler}))
    assert context.trace_id == context.request_id == TRACE_ID
    if not traced:
        assert (context.span_id, context.trace) == (PARENT, None)
        return
    assert context.span_id != PARENT
    assert context.trace is not None
    assert (context.trace.parent_id, context.trace.trace_state) == (PARENT, ("a=1", "b=2"))


@pytest.mark.parametrize("traceparent", ["junk", f"00-{'0' * 32}-{PARENT}-01"])
def test_a_caller_who_cannot_be_understood_is_none(traceparent: str) -> None:
    headers = [(b"traceparent", traceparent.encode()), (b"tracestate", b"a=1"), (b"x-request-id", b"mine")]
    context = context_of(headers, sampler_of({"OTEL_TRACES_SAMPLER": "always_on"}))
    assert context.request_id == "mine"
    assert context.trace is not None
    assert (context.trace.parent_id, context.trace.trace_state) == (None, ())
    assert context.trace_id not in (None, TRACE_ID)


def test_what_is_nothing_to_recognise_is_not_traced() -> None:
    scope = {"method": "GET", "path": "/livez", "query_string": b"", "headers": [(b"traceparent", TAKEN.encode())]}
    gate = RequestIds(sampler_of({}))
    for announced, traced in ((None, False), (NOTHING_ANNOUNCED, True)):
        head = Head(scope)
        head.announced = announced
        gate.check(head)
        assert (head.context.trace is not None) == traced


# -- What the collector receives -----------------------------------------------------------------------------------------


def test_a_request_has_a_server_span_and_one_for_each_stage(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = tracing_to(collector, monkeypatch, "")
    metrics = serve(tracing, post(traceparent=TAKEN, tracestate="vendor=x", host="words.example:8080"))
    spans = collector.wait_for(SPANS_OF_ONE)
    assert set(spans) == {f"POST {PATH}", "decode", "queue", "inference"}
    server = spans[f"POST {PATH}"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    assert (server.kind, server.parent_span_id.hex(), server.status.code) == (SERVER, PARENT, OK)
    assert {span.trace_state for span in spans.values()} == {"vendor=x"}
    crops = {"parseq.crops": 1, "parseq.model": "toy", "parseq.outcome": "done"}
    assert values(server.attributes) == crops | {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": 200,
        "url.path": PATH,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "words.example",
        "server.port": 8080,
    }
    stages = [spans[name] for name in ("decode", "queue", "inference")]
    for stage in stages:
        assert (stage.kind, stage.parent_span_id) == (INTERNAL, server.span_id)
        sizes = {"parseq.batch_size": 1, "parseq.runs": 1} if stage.name == "inference" else {}
        assert values(stage.attributes) == crops | sizes
    times = [server.start_time_unix_nano]
    for stage in stages:
        times += [stage.start_time_unix_nano, stage.end_time_unix_nano]
    times.append(server.end_time_unix_nano)
    assert all(later - earlier > -1000 for earlier, later in pairwise(times)), times  # of rounding
    assert ended(metrics, "exported") == SPANS_OF_ONE
    [(path, headers), *_] = collector.requests
    assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")


def test_several_crops_have_no_more_spans(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [("file", (f"private-{text}.png", png_of(text))) for text in ("bird", "fish")] + [("file", b"junk")]
    serve(tracing_to(collector, monkeypatch), lambda client: client.post(PATH, files=parts))
    spans = collector.wait_for(SPANS_OF_ONE)
    found = {name: values(span.attributes) for name, span in spans.items()}
    assert len(collector.spans) == SPANS_OF_ONE
    assert [found[name]["parseq.crops"] for name in (f"POST {PATH}", "decode", "queue", "inference")] == [3, 3, 2, 2]
    outcomes = [found[name]["parseq.outcome"] for name in ("decode", "queue", "inference")]
    assert outcomes == ["mixed", "done", "done"]
    told = "".join(map(str, collector.spans))
    assert not [word for word in ("private", "bird", "fish") if word in told]


def test_the_open_inference_protocol_is_traced_by_its_route(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers = files(png_of("word"))
    serve(tracing_to(collector, monkeypatch), lambda client: client.post(INFER, content=body, headers=headers))
    found = values(collector.wait_for(SPANS_OF_ONE)["POST /v2/models/{name}/infer"].attributes)
    assert (found["http.route"], found["url.path"]) == ("/v2/models/{name}/infer", INFER)


@pytest.mark.parametrize(
    ("content", "status", "names", "outcome"),
    [(b"junk", OK, {"decode"}, "failed"), (png_of("a", poisoned=True), ERROR, {"decode", "queue", "inference"}, "failed")],
)
def test_only_what_the_server_is_to_blame_for_is_an_error(
    content: bytes, status: int, names: set[str], outcome: str, collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tracing_to(collector, monkeypatch), post(content))
    spans = collector.wait_for(len(names) + 1)
    server = spans.pop(f"POST {PATH}")
    assert spans.keys() == names
    attributes = values(server.attributes)
    assert (server.status.code, attributes["parseq.outcome"]) == (status, outcome)
    assert attributes.get("error.type") == ("500" if status == ERROR else None)
    assert all(span.end_time_unix_nano <= server.end_time_unix_nano for span in spans.values())


def test_a_crop_that_expires_in_the_queue_went_no_further(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()

    async def ask(client: httpx.AsyncClient) -> None:
        session.gate.clear()
        answer = await client.post(PATH, content=png_of("a"), headers={**PNG, "x-request-timeout-ms": "150"})
        assert answer.status_code == 504
        session.gate.set()

    serve(tracing_to(collector, monkeypatch), ask, session)
    server = collector.wait_for(SPANS_OF_ONE)[f"POST {PATH}"]
    assert values(server.attributes)["parseq.outcome"] == "expired"
    assert server.status.code == ERROR
    assert all(span.end_time_unix_nano <= server.end_time_unix_nano for span in collector.spans)


def test_refused_requests_have_a_span_and_probes_have_none(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for path in ("/livez", "/readyz", "/ping", "/metrics", "/v2/health/live", "/v1/models", "/nowhere"):
            await client.get(path, headers={"traceparent": TAKEN})
        assert (await client.post(f"{PATH}?model=none", content=b"x", headers=PNG)).status_code == 404

    serve(tracing_to(collector, monkeypatch), ask)
    spans = collector.wait_for(1)
    assert spans.keys() == {f"POST {PATH}"}
    assert values(spans[f"POST {PATH}"].attributes)["http.response.status_code"] == 404


def test_opentelemetrys_own_variables_say_the_rest(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "exporter_otlp_endpoint": "http://nowhere.invalid:1",
        "exporter_otlp_traces_endpoint": f"{collector.endpoint}/elsewhere",
        "exporter_otlp_headers": "authorization=Bearer%20x",
        "exporter_otlp_compression": "gzip",
        "service_name": "mine",
        "resource_attributes": "deployment.environment.name=test,service.version=9",
    }
    serve(tracing_to(collector, monkeypatch, **variables), post())
    collector.wait_for(SPANS_OF_ONE)
    [(path, headers), *_] = collector.requests
    assert (path, headers["authorization"], headers["content-encoding"]) == ("/elsewhere", "Bearer x", "gzip")
    wanted = {"service.name": "mine", "deployment.environment.name": "test", "service.version": "9"}
    assert wanted.items() <= collector.resources[0].items()


def test_without_them_the_service_says_who_it_is(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(tracing_to(collector, monkeypatch), post())
    collector.wait_for(SPANS_OF_ONE)
    assert {"service.name": "parseq-service", "service.version": "1.2.3"}.items() <= collector.resources[0].items()


# -- When something is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is no address"),
        ({"EXPORTER_OTLP_PROTOCOL": "grpc"}, "by http/protobuf (a collector's port 4318) and not by grpc"),
        ({"TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        ({"BSP_MAX_QUEUE_SIZE": "many"}, "OTEL_BSP_MAX_QUEUE_SIZE=many"),
        ({"BSP_SCHEDULE_DELAY": "soon"}, "OTEL_BSP_SCHEDULE_DELAY=soon is no number"),
        ({"BSP_EXPORT_TIMEOUT": "-1"}, "OTEL_BSP_EXPORT_TIMEOUT=-1 is no number"),
    ],
)
def test_settings_that_cannot_be_met_are_told_and_leave_it_off(
    variables: dict[str, str], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"EXPORTER_OTLP_ENDPOINT": "http://localhost:1"} | variables
    assert open_tracing({f"OTEL_{name}": value for name, value in given.items()}, "1") is None
    [line] = caplog.messages
    assert line.startswith("no traces: ")
    assert complaint in line


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "service.tracing.spans", raising=False)
    monkeypatch.delitem(sys.modules, "service.tracing.export", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"}, "1") is None
    [line] = caplog.messages
    assert f"pip install '{EXTRA}'" in line


def test_the_librarys_other_settings_bring_neither_tracebacks_nor_a_line_for_each_span(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"experimental_resource_detectors": "nosuch", "attribute_value_length_limit": "3"}
    serve(tracing_to(collector, monkeypatch, **variables), post())
    assert values(collector.wait_for(SPANS_OF_ONE)["decode"].attributes)["parseq.outcome"] == "don"
    theirs = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert [(record.getMessage(), record.exc_info) for record in theirs] == [
        ("Failed to load resource detector 'nosuch', skipping", None)
    ]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_collector_that_refuses_is_told_of_once_and_once_more_when_it_takes_spans(
    status: int, collector: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.tracing")

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await post()(client)
            assert collector.asked.acquire(timeout=60)  # one batch each
        while len(collector.requests) < 3:
            await post()(client)
        collector.status = 200
        while not collector.spans:
            await post()(client)

    collector.status = status
    metrics = serve(tracing_to(collector, monkeypatch), ask)
    lines = [record for record in caplog.records if record.name.startswith("service.tracing")]
    failed, again = [line.getMessage() for line in lines if "sent to" not in line.getMessage()]
    assert "the collector takes no spans" in failed
    assert str(status) in failed
    assert "takes spans again" in again
    assert not [line for line in lines if line.exc_info]
    assert ended(metrics, "failed") >= 3 * SPANS_OF_ONE
    assert ended(metrics, "exported") >= SPANS_OF_ONE


def test_a_collector_that_hangs_keeps_nobody_waiting(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector.gate.clear()
    n_requests, room = 10, 8

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(n_requests):
            assert (await post()(client)).status_code == 200

    tracing = tracing_to(collector, monkeypatch, bsp_max_queue_size=str(room))
    metrics = serve(tracing, ask, drain_timeout_s=0)
    # The server has stopped, and the collector has not answered yet.
    assert ended(metrics, "exported") == 0
    assert ended(metrics, "dropped") == n_requests * SPANS_OF_ONE - room
    assert f"the last {room} spans were not exported in time" in caplog.messages


def test_what_waits_is_exported_when_the_server_stops(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = tracing_to(collector, monkeypatch, bsp_schedule_delay="3600000")
    metrics = serve(tracing, post())
    assert len(collector.spans) == SPANS_OF_ONE
    assert ended(metrics, "exported") == SPANS_OF_ONE


def test_a_trace_that_cannot_be_written_is_nobodys_problem(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_values: Any) -> None:
        raise Problem(errors.INTERNAL, "broken")

    tracing = tracing_to(collector, monkeypatch)
    monkeypatch.setattr(tracing._writer, "write", broken)

    async def ask(client: httpx.AsyncClient) -> None:
        assert (await post()(client)).status_code == 200

    serve(tracing, ask)
    assert "a trace was not written" in caplog.messages
