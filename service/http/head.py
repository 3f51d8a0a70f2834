"""The head of a request, read once: what it says, and what the gates found out about who sent it."""

from __future__ import annotations

import math
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from service.core.served_model import ServedModel
from service.errors import MALFORMED_REQUEST, Problem
from service.http.bodies.media_types import media_type_of
from service.process.request import RequestContext

HEAD_KEY: Final = "parseq.head"
"""Where the HTTP server leaves the head in the scope when it has read it already."""
TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
MIN_TIMEOUT_MS: Final = 100.0
"""Less is hardly meant: seconds, taken for milliseconds. A deadline that nobody can keep would be answered with 504, as if
the server had failed."""
MAX_LENGTH_DIGITS: Final = 18
"""Of a `Content-Length`: Python refuses to read numbers of thousands of digits."""
_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()
_NO_CONTEXT: Final = RequestContext("")


class Count(Enum):
    """How many crops a head announces."""

    ONE = 1
    SOME = 2
    """One or several: it is refused, as a single crop is, when neither would be let in."""
    SEVERAL = 3
    """The same, refused as several crops are."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a dialect tells of a request before its body is read."""

    count: Count | None = None
    """`None`: not known, or something is wrong with the head, which parsing will say."""
    model: str | None = None
    """The name of the one that is asked for; `None`: the default one."""
    version: str | None = None
    """Which of that name; `None`: any."""


class Head:
    """What gates and dialects ask of a request: what was sent, and at the end what is found out on the way.

    Args:
        scope: Of an ASGI request.
    """

    __slots__ = (
        "announced", "client", "content_length", "context", "headers", "http_version", "lines", "media_type", "method", "model",
        "path", "peer", "query", "timeout_ms",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.method: str = scope["method"]
        self.http_version: str = scope.get("http_version", "1.1")
        self.path: str = scope["path"]
        """Without the query, and with %-escapes resolved."""
        self.query: bytes = scope["query_string"]
        self.lines: list[tuple[bytes, bytes]] = scope["headers"]
        """All headers, names in lower case."""
        self.headers: dict[bytes, bytes] = dict(self.lines)
        """The last of each name."""
        self.media_type = media_type_of(self.headers.get(b"content-type", b""))
        announced = self.headers.get(b"content-length", b"")
        self.content_length = math.inf if len(announced) > MAX_LENGTH_DIGITS else int(announced) if announced.isdigit() else 0
        """What `Content-Length` says, in bytes; 0 when it says nothing."""
        given = self.headers.get(_TIMEOUT_KEY)
        self.timeout_ms = math.inf if given is None else _timeout_ms(given)
        """What the client gives us for this request; infinite when it does not say, NaN when it says nothing sensible."""
        peer = scope.get("client")
        self.peer: str | None = peer[0] if peer else None
        """Address of the other end of the connection; a socket in the file system has none."""

        self.announced: Announcement | None = None
        """`None`: it is nothing to recognise, by its path or its method."""
        self.context = _NO_CONTEXT
        self.client: Hashable = None
        """Whose request it is, for sharing fairly: the digest of an API key, or an address."""
        self.model: ServedModel | None = None
        """The one that is asked for; it may be replaced while the body arrives."""

    def checked_timeout_ms(self) -> float:
        """`timeout_ms`, which is a number.

        Raises:
            Problem: It is none, or less than any client can mean.
        """
        if math.isnan(self.timeout_ms):
            detail = f"The header {TIMEOUT_HEADER} must be a number of milliseconds, at least {MIN_TIMEOUT_MS:g}, such as 250."
            raise Problem(MALFORMED_REQUEST, detail)
        return self.timeout_ms


def _timeout_ms(given: bytes) -> float:
    try:
        timeout_ms = math.nan if b"_" in given else float(given)  # Python's 1_000 is nobody else's number
    except ValueError:
        return math.nan
    return timeout_ms if MIN_TIMEOUT_MS <= timeout_ms < math.inf else math.nan
