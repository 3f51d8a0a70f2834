"""The id of a request, for its answer and log lines, and the trace that it belongs to.

A client's `X-Request-Id` is kept if it is short and printable. Else the id is the trace id of a valid W3C `traceparent`, else a
new one.
"""

from __future__ import annotations

import random
import re
from typing import Final

from service.http.head import Head
from service.http.problems import REQUEST_ID_HEADER
from service.process.request import RequestContext, current_request

TRACEPARENT_HEADER: Final = b"traceparent"
MAX_REQUEST_ID_LENGTH: Final = 128

_SANE_ID: Final = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_REQUEST_ID_LENGTH)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_random: Final = random.Random()


def context_of(headers: list[tuple[bytes, bytes]]) -> RequestContext:
    """The context of a request with these headers, their names in lower case."""
    names = dict(headers)
    trace_id = None
    if TRACEPARENT_HEADER in names and sum([name == TRACEPARENT_HEADER for name, _ in headers]) == 1:
        trace_id = _trace_id(names[TRACEPARENT_HEADER])
    given = names.get(REQUEST_ID_HEADER)
    if given is not None and _SANE_ID.fullmatch(given):
        return RequestContext(given.decode("ascii"), trace_id)
    return RequestContext(trace_id or f"{_random.getrandbits(128):032x}", trace_id)


def _trace_id(traceparent: bytes) -> str | None:
    """The trace id, or `None` if it is not valid: the specification has servers ignore that, and read future versions."""
    match = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    if match is None or (match["version"] == b"00" and match["more"] is not None):
        return None
    return match["trace_id"].decode("ascii")


class RequestIds:
    """Gives each request its context, whose id every answer carries."""

    def check(self, head: Head) -> None:
        """Set `head.context`, for log lines too."""
        head.context = context_of(head.lines)
        # Never reset: the server runs each request in a task of its own, and logs uncaught errors in that task.
        current_request.set(head.context)
