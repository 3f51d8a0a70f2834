"""A call as the gates see it, and an answer as gRPC sends it."""

from __future__ import annotations

import math
from typing import Any, Final
from urllib.parse import unquote

import grpc

from service.http.head import Head
from service.http.problems import REQUEST_ID_HEADER, Answer

OK: Final = 200
CODES: Final = {
    OK: grpc.StatusCode.OK,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of an answer, by its status over HTTP; all others are what the client should not have sent."""
RETRY_HEADER: Final = b"retry-after"
PUSHBACK_KEYS: Final = ("grpc-retry-pushback-ms", "retry-pushback-ms")
"""What retry policies of clients heed (github.com/grpc/proposal, A6), and the same for those that read it themselves."""
ANSWER_SHARE: Final = 0.9
ANSWER_MS: Final = 5.0
"""Of the time that a client gives us, so much at most is left for the way back: our answer ends the call, not its deadline."""


def head_of(context: Any, path: str) -> Head:
    """What is known of a call before its message has come; metadata are its headers.

    Args:
        context: Of the call.
        path: Of the method, such as `/inference.GRPCInferenceService/ModelInfer`.
    """
    headers = [
        (key.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for key, value in context.invocation_metadata() or ()
    ]
    address = address_of(context.peer())
    peer = (address, 0) if address else None
    return Head({"method": "POST", "path": path, "query_string": b"", "headers": headers, "client": peer})


def address_of(peer: str) -> str:
    """The address in what gRPC tells of the other end, `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; empty: it has none."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def timeout_ms_of(context: Any) -> float:
    """How long we have to answer from now on; infinite when the client does not say."""
    left_s: float | None = context.time_remaining()
    if left_s is None:
        return math.inf
    left_ms = max(0.0, 1000 * left_s)
    return max(ANSWER_SHARE * left_ms, left_ms - ANSWER_MS)


def code_of(status: int) -> grpc.StatusCode:
    """Of an answer with this status over HTTP."""
    return CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT)


async def send(answer: Answer, context: Any, head: Head) -> bytes:
    """The message of an answer, or the end of the call if it tells a problem.

    Args:
        answer: Whose headers become trailing metadata.
        context: Of the call.
        head: Of the call, whose request id goes with it.
    """
    metadata = [(REQUEST_ID_HEADER.decode(), head.context.request_id)]
    for name, value in answer.headers:
        if name == RETRY_HEADER:
            metadata += [(key, str(1000 * int(value))) for key in PUSHBACK_KEYS]
        else:
            metadata.append((name.decode(), value.decode("latin-1")))
    context.set_trailing_metadata(tuple(metadata))
    if answer.status != OK:
        await context.abort(code_of(answer.status), answer.body.decode())
    return answer.body
