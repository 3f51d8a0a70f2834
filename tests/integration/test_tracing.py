"""A server that was told of a collector by the environment, from its start to its end."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.server import running
from tests.otlp_receiver import receiving, values
from tests.toy_artifact import png_of, write_artifact

TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"content-type": "image/png", "x-request-id": "mine"}
TAKEN = HEADERS | {"traceparent": f"00-{TRACE_ID}-{PARENT}-01"}
LEFT = HEADERS | {"traceparent": f"00-{TRACE_ID}-{PARENT}-00"}
SPANS_OF_ONE = 4


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("model") / "toy.onnx")


def lines_of(log: Path) -> list[dict[str, Any]]:
    """What the server said; every line is an object, whoever wrote it."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_spans_arrive_and_log_lines_name_them(artifact: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with receiving() as collector:
        # So late that only the end of the server exports anything.
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "3600000", "NO_PROXY": "*"}
        with running(artifact, log, variables=variables, log_format="json", log_level="debug", forked=True) as server:
            for headers in (TAKEN, LEFT):
                assert httpx.post(f"{server.url}/v1/recognize", content=png_of("a"), headers=headers).status_code == 200
            assert server.terminate() == 0
        assert len(collector.spans) == SPANS_OF_ONE
    [span] = [span for span in collector.spans if span.name == "POST /v1/recognize"]
    assert values(span.attributes)["server.port"] == int(server.url.rpartition(":")[2])
    traced, left = [line for line in lines_of(log) if line["message"].startswith("POST /v1/recognize: 200")]
    assert (traced["request_id"], traced["trace_id"], traced["span_id"]) == ("mine", TRACE_ID, span.span_id.hex())
    assert (left["trace_id"], left["span_id"]) == (TRACE_ID, PARENT)


def test_without_a_collector_the_service_serves_and_stops_as_ever(artifact: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Nobody listens there once it is closed.
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20", "NO_PROXY": "*"}
    variables |= {"OTEL_EXPORTER_OTLP_TIMEOUT": "1.5", "OTEL_TRACES_SAMPLER": "always_on"}
    with running(artifact, log, variables=variables, log_format="json", log_level="info", forked=True) as server:
        while not server.metric('parseq_trace_spans_total{outcome="failed"}'):
            assert httpx.post(f"{server.url}/v1/recognize", content=png_of("a"), headers=HEADERS).status_code == 200
        assert server.terminate() == 0
    lines = lines_of(log)
    assert not [line for line in lines if "exception" in line or "Traceback" in line["message"]]
    [warning] = [line for line in lines if line["level"] == "warning" and "collector" in line["message"]]
    assert "refused" in warning["message"]
    assert not [line for line in lines if line["logger"].startswith("opentelemetry")]
