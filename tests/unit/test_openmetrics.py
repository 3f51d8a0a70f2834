"""Metrics in the format that has exemplars, and those that tell how sure a model is."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.http.routes import prefers_openmetrics
from service.tracing.sampling import ALWAYS, NEVER, Sampler
from service.tracing.tracing import Tracing
from tests.fakes import request, toy_runtime, with_client
from tests.toy_artifact import png_of

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"content-type": "image/png", "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
LATENCIES = {
    "parseq_request_duration_seconds",
    "parseq_recognition_duration_seconds",
    "parseq_image_decode_wait_seconds",
    "parseq_image_decode_duration_seconds",
    "parseq_queue_wait_seconds",
    "parseq_inference_duration_seconds",
}


class Unexported(Tracing):
    """Traces what callers trace, and exports nothing."""

    def __init__(self) -> None:
        self.sampler = Sampler(NEVER, ALWAYS, NEVER)

    def end(self, *_values: object) -> None:
        pass

    def stop(self, timeout_s: float) -> None:
        pass


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        ("text/plain, application/openmetrics-text", True),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("", False),
        (";;,,=;q", False),
    ],
)
def test_who_prefers_openmetrics_is_found(accept: str, preferred: bool) -> None:
    assert prefers_openmetrics(accept) == preferred


def test_openmetrics_is_what_its_specification_has_and_nothing_is_lost() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post("/v1/recognize", content=png_of("word"), headers={"content-type": "image/png"})
        plain = await client.get("/metrics")
        other = await client.get("/metrics", headers={"accept": PROMETHEUS})
        assert plain.headers["content-type"].startswith("text/plain; version=")
        assert other.headers["content-type"] == OPENMETRICS
        assert other.text.endswith("\n# EOF\n")
        assert list(text_string_to_metric_families(other.text))
        names = [
            {line.partition("{")[0].split()[0] for line in text.splitlines() if line[0] != "#"}
            for text in (plain.text, other.text)
        ]
        assert names[0] == names[1]

    with_client(toy_runtime(), scenario)


@pytest.mark.parametrize("traced", [True, False])
def test_latencies_of_a_traced_request_are_examples(traced: bool) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post("/v1/recognize", content=png_of("word"), headers=HEADERS)
        text = (await client.get("/metrics", headers={"accept": OPENMETRICS})).text
        examples = {
            family.name: sample.exemplar.labels
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.exemplar
        }
        assert examples == ({name: {"trace_id": TRACE_ID} for name in LATENCIES} if traced else {})

    with_client(toy_runtime(tracing=Unexported() if traced else None), scenario)


def test_crops_that_wait_for_a_decode_thread_are_examples_too() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(
            "/v1/recognize", files=[("a", png_of("a")), ("b", png_of("b"))], headers={"traceparent": HEADERS["traceparent"]}
        )
        text = (await client.get("/metrics", headers={"accept": OPENMETRICS})).text
        found = {line.partition("_bucket")[0] for line in text.splitlines() if f'# {{trace_id="{TRACE_ID}"}}' in line}
        assert found == LATENCIES

    with_client(toy_runtime(tracing=Unexported()), scenario)


def test_how_sure_a_model_is_and_what_it_finds_empty_is_told() -> None:
    async def scenario(client: httpx.AsyncClient) -> str:
        for content in (png_of("word"), png_of(""), b"junk", png_of("other")):
            await client.post("/v1/recognize", content=content, headers={"content-type": "image/png"})
        return (await client.get("/metrics")).text

    text = with_client(toy_runtime(), scenario)
    assert 'parseq_text_confidence_count{model="toy"} 3.0' in text
    assert 'parseq_empty_texts_total{model="toy"} 1.0' in text


def test_both_are_there_from_the_start() -> None:
    text = request(toy_runtime(), "GET", "/metrics").text
    assert 'parseq_text_confidence_bucket{le="0.5",model="toy"} 0.0' in text
    assert 'parseq_empty_texts_total{model="toy"} 0.0' in text
