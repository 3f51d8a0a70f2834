"""What the trace of a request says of it, by OpenTelemetry's stable conventions for HTTP servers.

Source: opentelemetry.io/docs/specs/semconv/http/http-spans. Of what the conventions recommend, the query, the client's address
and its program are left out: they may be personal, and a query holds whatever a client puts there.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from service.http.head import Head
from service.http.request_observer import ServerSpan

MAX_PATH_CHARACTERS: Final = 256
MAX_HOST_CHARACTERS: Final = 255
SERVER_ERROR: Final = 500


def span_of(head: Head, route: str, status: int) -> ServerSpan:
    """The span of a request.

    Args:
        head: Of the request.
        route: Its path as a dialect writes it, with `{name}` for what varies.
        status: Of the answer; 499 when the client had left.
    """
    attributes: dict[str, str | int] = {
        "http.request.method": head.method,
        "http.route": route,
        "http.response.status_code": status,
        "url.path": head.path[:MAX_PATH_CHARACTERS],
        "url.scheme": "http",
        "network.protocol.version": head.http_version,
    }
    failed = status >= SERVER_ERROR
    if failed:
        attributes["error.type"] = str(status)
    host, port = server_of(head)
    if host:
        attributes["server.address"] = host
        if port:
            attributes["server.port"] = port
    return ServerSpan(f"{head.method} {route}", attributes, failed)


def server_of(head: Head) -> tuple[str, int]:
    """Whom the client asked, by the header `Host`; empty and 0 for what it does not say."""
    given = head.headers.get(b"host", b"").decode("latin-1")[:MAX_HOST_CHARACTERS]
    try:
        url = urlsplit(f"//{given}")
        return url.hostname or "", url.port or 0
    except ValueError:
        return "", 0
