"""A collector in this process that takes OTLP over HTTP, or is in one of the states that collectors are in."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.tracing.tracing import Tracing, open_tracing
from tests.fakes import PATIENCE_S


class Receiver:
    """What has arrived; `status` is what is answered, `gate` holds answers back until it is set."""

    def __init__(self) -> None:
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.endpoint = ""
        self._arrived = threading.Condition()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """One export; the status of the answer."""
        self.asked.release()
        assert self.gate.wait(PATIENCE_S)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        with self._arrived:
            self.requests.append((path, headers))
            if self.status == 200:
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(values(of_resource.resource.attributes))
                    self.spans += [span for of_scope in of_resource.scope_spans for span in of_scope.spans]
            self._arrived.notify_all()
        return self.status

    def wait_for(self, n_spans: int) -> dict[str, Any]:
        """Spans by name, once there are so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.spans) >= n_spans, PATIENCE_S), self.requests
            return {span.name: span for span in self.spans}


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """No variables of OpenTelemetry but these, in lower case and without `OTEL_`."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")
    for name, value in {"bsp_schedule_delay": "20", **variables}.items():
        monkeypatch.setenv(f"OTEL_{name.upper()}", value)


def tracing_to(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, sampler: str = "always_on", **variables: str) -> Tracing:
    """Tracing to a collector, by these variables."""
    given = {"exporter_otlp_endpoint": receiver.endpoint, "traces_sampler": sampler, **variables}
    set_environment(monkeypatch, **given)
    tracing = open_tracing(os.environ, "1.2.3")
    assert tracing is not None
    return tracing


def values(attributes: Any) -> dict[str, Any]:
    """OTLP's list of attributes as a dictionary."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A collector that takes all, at `endpoint`."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.endpoint = "http://{}:{}".format(*server.server_address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)
