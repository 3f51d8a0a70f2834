"""Makes the spans of a request that has been answered, from the times of its stages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from service.process.request import Attributes, RequestContext, Trace
from service.tracing.export import Outlet

DEFAULT_SERVICE_NAME: Final = "parseq-service"


def _in_one_line(record: logging.LogRecord) -> bool:
    """Takes the traceback away from what the library says of somebody's setting."""
    record.exc_info = None
    return True


logging.getLogger("opentelemetry.sdk.resources").addFilter(_in_one_line)
# That an attribute was cut to `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`, which it would say of each.
logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)


class _Ids(RandomIdGenerator):
    """Gives the span of a request the ids that its log lines have."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        """Of a trace that begins here."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """The one that is wanted, once; then random ones."""
        wanted, self.span_id = self.span_id, 0
        return wanted or super().generate_span_id()


class SpanWriter:
    """Writes spans to an outlet.

    Args:
        environment: Has `OTEL_*`.
        version: Of the service.
        count: Told what became of spans.

    Raises:
        Exception: Whatever OpenTelemetry's library finds wrong with its settings.
    """

    def __init__(self, environment: Mapping[str, str], version: str, count: Callable[[str, int], None]) -> None:
        self._ids = _Ids()
        self._lock = threading.Lock()
        self._outlet = Outlet(environment, count)
        # Not sampled once more, and ended by `stop`, within a time.
        provider = TracerProvider(ALWAYS_ON, _resource(version), shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._outlet)
        self._tracer = provider.get_tracer(DEFAULT_SERVICE_NAME, version)

    def write(self, context: RequestContext, name: str, started_s: float, attributes: Attributes, failed: bool) -> None:
        """Write the spans of a request that ends now; see `Tracing.end`."""
        trace, trace_id = context.trace, context.trace_id
        if trace is None or trace_id is None or context.span_id is None:
            return
        now_ns = time.time_ns()
        epoch_ns = now_ns - time.monotonic_ns()  # the clock's zero
        with self._lock:
            self._ids.trace_id, self._ids.span_id = int(trace_id, 16), int(context.span_id, 16)
            span = self._tracer.start_span(
                name,
                _caller(trace_id, trace),
                SpanKind.SERVER,
                {**attributes, **trace.attributes},
                start_time=epoch_ns + int(started_s * 1e9),
            )
            inside = set_span_in_context(span, Context())
            for stage in trace.stages:
                started_ns = epoch_ns + int(stage.started_s * 1e9)
                child = self._tracer.start_span(stage.name, inside, attributes=stage.attributes, start_time=started_ns)
                child.end(epoch_ns + int(stage.ended_s * 1e9))
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns)

    def stop(self, timeout_s: float) -> None:
        """Export what waits, and no more."""
        self._outlet.stop(timeout_s)


def _caller(trace_id: str, trace: Trace) -> Context:
    """The context that the request came in."""
    if trace.parent_id is None:
        return Context()
    flags, state = TraceFlags(trace.parent_flags), TraceState.from_header(list(trace.trace_state))
    caller = SpanContext(int(trace_id, 16), int(trace.parent_id, 16), is_remote=True, trace_flags=flags, trace_state=state)
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _resource(version: str) -> Resource:
    """What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and what we know if they do not say it."""
    found = Resource.create()
    own = {} if SERVICE_VERSION in found.attributes else {SERVICE_VERSION: version}
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # as the library has it when nobody says it
        own[SERVICE_NAME] = DEFAULT_SERVICE_NAME
    return found.merge(Resource(own))
