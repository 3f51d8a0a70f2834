"""Which request a line of the log is about."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What tells one request from another."""

    request_id: str
    """Visible ASCII, so it can stand in a header and in a log line as it is."""
    trace_id: str | None = None
    """Of a valid `traceparent`."""

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
