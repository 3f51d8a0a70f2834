"""The head of a request, read once: what it says, and what the gates found out about who sent it."""

from __future__ import annotations

import math
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from service.core.models import Model
from service.errors import MALFORMED_REQUEST, Problem
from service.http.bodies.media_types import media_type_of
from service.process.request import RequestContext

HEAD_KEY: Final = "parseq.head"
"""Where in the scope the HTTP server leaves a head that it has read."""
TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
MIN_TIMEOUT_MS: Final = 100.0
"""A smaller number is taken for a mistake, such as seconds in place of milliseconds: nobody could keep such a deadline, and the
504 would look as if the server had failed."""
MAX_LENGTH_DIGITS: Final = 18
"""Digits of a `Content-Length`: Python refuses to read numbers of thousands of digits."""
_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()
_NO_CONTEXT: Final = RequestContext("")


class Count(Enum):
    """How many crops a head announces."""

    ONE = 1
    SOME = 2
    """One or several: the request is refused, as a single crop, only when neither one nor several would be let in."""
    SEVERAL = 3
    """The same, but refused as several crops."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a dialect knows of a request before its body is read."""

    count: Count | None = None
    """How many crops it has; `None`: not known, or the head has a fault, which `parse` will tell."""
    model: str | None = None
    """The name of the model that is asked for; `None`: the default model."""
    version: str | None = None
    """The version of it that is asked for; `None`: any."""


class Head:
    """What gates and dialects ask about a request: first what was sent, then, from `announced` on, what gates have found out.

    Args:
        scope: The ASGI scope of the request.
    """

    __slots__ = (
        "announced", "client", "content_length", "context", "headers", "http_version", "lines", "media_type", "method", "model",
        "passed", "path", "peer", "query", "timeout_ms",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.method: str = scope["method"]
        self.http_version: str = scope.get("http_version", "1.1")
        self.path: str = scope["path"]
        """The path without the query, %-escapes resolved."""
        self.query: bytes = scope["query_string"]
        self.lines: list[tuple[bytes, bytes]] = scope["headers"]
        """All headers, names in lower case."""
        self.headers: dict[bytes, bytes] = dict(self.lines)
        """Headers by name, in lower case; of several with the same name the last."""
        self.media_type = media_type_of(self.headers.get(b"content-type", b""))
        announced = self.headers.get(b"content-length", b"")
        self.content_length = math.inf if len(announced) > MAX_LENGTH_DIGITS else int(announced) if announced.isdigit() else 0
        """What `Content-Length` says, in bytes; 0 when it says nothing."""
        given = self.headers.get(_TIMEOUT_KEY)
        self.timeout_ms = math.inf if given is None else _timeout_ms(given)
        """Milliseconds that the client allows; infinite when it does not say, NaN when its header is not a number."""
        peer = scope.get("client")
        self.peer: str | None = peer[0] if peer else None
        """Address of the other end of the connection; `None` for a socket in the file system."""

        self.announced: Announcement | None = None
        """What the dialect announces; `None`: this is no recognition request, by its path or its method."""
        self.context = _NO_CONTEXT
        self.client: Hashable = None
        """Whose request it is, for fair shares: the digest of an API key, or an address."""
        self.model: Model | None = None
        """The model that is asked for; a reload may replace it while the body arrives."""
        self.passed = False
        """Whether it has passed the gates, before the app was called."""

    def checked_timeout_ms(self) -> float:
        """`timeout_ms`, checked.

        Raises:
            Problem: It is NaN, or less than `MIN_TIMEOUT_MS`.
        """
        if math.isnan(self.timeout_ms):
            detail = f"The header {TIMEOUT_HEADER} must be a number of milliseconds, at least {MIN_TIMEOUT_MS:g}, such as 250."
            raise Problem(MALFORMED_REQUEST, detail)
        return self.timeout_ms


def _timeout_ms(given: bytes) -> float:
    try:
        timeout_ms = math.nan if b"_" in given else float(given)  # `float` takes 1_000, which is no number elsewhere
    except ValueError:
        return math.nan
    return timeout_ms if MIN_TIMEOUT_MS <= timeout_ms < math.inf else math.nan
