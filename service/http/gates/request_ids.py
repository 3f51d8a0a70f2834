"""The id of a request, for its answer and log lines, and the trace that it belongs to.

A client's `X-Request-Id` is kept if it is short and printable. Else the id is the trace id of a valid W3C `traceparent`, else a
new one.
"""

from __future__ import annotations

import os
import random
import re
from typing import Final

from service.http.head import Head
from service.http.problems import REQUEST_ID_HEADER
from service.process.request import RequestContext, Trace, current_request
from service.tracing.sampling import Sampler

TRACEPARENT_HEADER: Final = b"traceparent"
TRACESTATE_HEADER: Final = b"tracestate"
MAX_REQUEST_ID_LENGTH: Final = 128

_SANE_ID: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_LENGTH)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})(?P<span_id>[0-9a-f]{16})"
    rb"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED: Final = 1
"""The flag of a `traceparent` by which a caller says that it traces this request."""
_random: Final = random.Random()
if hasattr(os, "register_at_fork"):  # front processes are forked, and their ids must not be the same
    os.register_at_fork(after_in_child=_random.seed)


def context_of(headers: list[tuple[bytes, bytes]], sampler: Sampler | None = None) -> RequestContext:
    """The context of a request.

    Args:
        headers: Names in lower case.
        sampler: Says whether it is traced; `None`: it is not.
    """
    names = dict(headers)
    caller = None
    if TRACEPARENT_HEADER in names and sum([name == TRACEPARENT_HEADER for name, _ in headers]) == 1:
        caller = _caller(names[TRACEPARENT_HEADER])
    if caller is None:
        trace_id, caller_span_id, flags = f"{_random.getrandbits(128):032x}", None, 0
    else:
        trace_id, caller_span_id, flags = caller["trace_id"].decode(), caller["span_id"].decode(), int(caller["flags"], 16)
    given = names.get(REQUEST_ID_HEADER)
    request_id = given.decode() if given is not None and _SANE_ID.fullmatch(given) else trace_id
    if sampler is not None and sampler.takes(trace_id, None if caller is None else bool(flags & _SAMPLED)):
        states = tuple([value.decode("latin-1") for name, value in headers if name == TRACESTATE_HEADER])
        trace = Trace({"trace_id": trace_id}, caller_span_id, flags, states if caller is not None else ())
        return RequestContext(request_id, trace_id, f"{_random.getrandbits(64) or 1:016x}", trace)
    return RequestContext(request_id, None if caller is None else trace_id, caller_span_id)


def _caller(traceparent: bytes) -> re.Match[bytes] | None:
    """What a caller says, or `None` if it is not valid: the specification has servers ignore that, and read future versions."""
    match = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    if match is None or (match["version"] == b"00" and match["more"] is not None):
        return None
    return match


class RequestIds:
    """Gives each request its context, whose id every answer carries.

    Args:
        sampler: Says which requests to recognise are traced; `None`: none is.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._sampler = sampler

    def check(self, head: Head) -> None:
        """Set `head.context`, for log lines too."""
        head.context = context_of(head.lines, self._sampler if head.announced is not None else None)
        # Never reset: the server runs each request in a task of its own, and logs uncaught errors in that task.
        current_request.set(head.context)
