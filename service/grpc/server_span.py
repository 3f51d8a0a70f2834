"""What the trace of a call says of it, by OpenTelemetry's conventions for gRPC servers.

Source: opentelemetry.io/docs/specs/semconv/rpc/grpc. They renamed attributes late: a name that they gave up is kept where most
programs still look for it, beside the new one if that has another name.
"""

from __future__ import annotations

from typing import Final

import grpc

from service.grpc.calls import code_of
from service.http.head import Head
from service.http.request_observer import ServerSpan
from service.http.server_span import server_of

SYSTEM: Final = "grpc"
SERVER_ERRORS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that the conventions blame on the server."""


def span_of(head: Head, status: int) -> ServerSpan:
    """The span of a call.

    Args:
        head: Of the call.
        status: Of its answer, as it would be over HTTP.
    """
    code = code_of(status)
    name = head.path.removeprefix("/")
    service, _, method = name.partition("/")
    attributes: dict[str, str | int] = {
        "rpc.system": SYSTEM,
        "rpc.system.name": SYSTEM,
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": code.value[0],
        "rpc.response.status_code": code.name,
    }
    failed = code in SERVER_ERRORS
    if failed:
        attributes["error.type"] = code.name
    host, port = server_of(head)
    if host:
        attributes["server.address"] = host
        if port:
            attributes["server.port"] = port
    return ServerSpan(name, attributes, failed)
