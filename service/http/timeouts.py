"""The header `X-Request-Timeout-Ms`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from service.errors import MALFORMED_REQUEST, Problem

TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
MIN_TIMEOUT_MS: Final = 100.0
"""Less is hardly meant: seconds, taken for milliseconds. A deadline that nobody can keep would be answered with 504, as if
the server had failed."""
_TIMEOUT_KEY: Final = TIMEOUT_HEADER.lower().encode()


def wanted_timeout_ms(headers: Mapping[bytes, bytes]) -> float:
    """What the client gives us for this request; infinite when it does not say.

    Raises:
        Problem: it is not a number, or less than any client can mean.
    """
    given = headers.get(_TIMEOUT_KEY)
    if given is None:
        return math.inf
    try:
        timeout_ms = math.nan if b"_" in given else float(given)  # Python's 1_000 is nobody else's number
    except ValueError:
        timeout_ms = math.nan
    if not MIN_TIMEOUT_MS <= timeout_ms < math.inf:
        detail = f"The header {TIMEOUT_HEADER} must be a number of milliseconds, at least {MIN_TIMEOUT_MS:g}, such as 250."
        raise Problem(MALFORMED_REQUEST, detail)
    return timeout_ms
