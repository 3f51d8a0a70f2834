"""Which request a line of the log is about, and what is kept of one that is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

Attributes = Mapping[str, str | int | float | bool]
"""Of a span, by the names of OpenTelemetry's conventions; ours begin with `parseq.`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the way of a request, on the monotonic clock."""

    name: str
    started_s: float
    ended_s: float
    attributes: Attributes


@dataclass(slots=True)
class Trace:
    """What is kept of a request that is traced, until spans are made of it when it has been answered."""

    exemplar: dict[str, str]
    """What goes with observations of metrics, as an example of them: the trace's id."""
    parent_id: str | None = None
    """The caller's span, 16 hexadecimal digits; `None`: the trace begins here."""
    parent_flags: int = 0
    """Of the caller's `traceparent`."""
    trace_state: tuple[str, ...] = ()
    """The caller's headers `tracestate`, as they came."""
    attributes: Attributes = field(default_factory=dict)
    """Of the span of the whole request, as far as those who recognise know them."""
    stages: list[Stage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What tells one request from another."""

    request_id: str
    """Visible ASCII, so it can stand in a header and in a log line as it is."""
    trace_id: str | None = None
    """Of a valid `traceparent`, or made for a request that is traced; 32 hexadecimal digits."""
    span_id: str | None = None
    """Of this request if it is traced, else of the caller's span; 16 hexadecimal digits."""
    trace: Trace | None = field(default=None, compare=False)
    """`None`: it is not traced."""

    def __str__(self) -> str:
        """For log lines."""
        trace = "" if self.trace_id in (None, self.request_id) else f" trace_id={self.trace_id}"
        return f"request_id={self.request_id}{trace}"


current_request: Final[ContextVar[RequestContext | None]] = ContextVar("current_request", default=None)
"""The request that the running task serves. Threads do not see it: they are handed the context itself."""


_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def outside_requests(call: Callable[_Parameters, _Result], *values: _Parameters.args, **named: _Parameters.kwargs) -> _Result:
    """Call for what is no request's business, though it may come up amid one: log lines of it carry no id."""
    return Context().run(call, *values, **named)
