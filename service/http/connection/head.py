"""What a head must be beyond what the parser looks at, as RFC 9112 has it, and heads that are put right first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import httptools

from service.errors import MALFORMED_REQUEST, UNSUPPORTED_TRANSFER_CODING, Problem

_HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.%~_-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_UPGRADE_TOKENS: Final = (b"upgrade", b"http2-settings")
MAX_LENGTH_DIGITS: Final = 20
"""Of 64 bits, which is what the parser counts with."""

Headers = Iterable[tuple[bytes, bytes]]


def body_length(version: str, headers: Headers) -> int | None:
    """How long the body is that a head announces, in bytes; `None`: it comes in chunks.

    Args:
        version: Of HTTP, such as `1.1`.
        headers: Names in lower case.

    Raises:
        Problem: The version is not spoken here, the host is not named once and properly, or the length of the body is in doubt.
    """
    if version not in ("1.0", "1.1"):
        raise Problem(MALFORMED_REQUEST, "This server speaks HTTP/1.1 and HTTP/1.0.")
    hosts = n_lengths = n_bytes = 0
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if _HOST.fullmatch(value) is None:
                raise Problem(MALFORMED_REQUEST, "The header Host is not a name or an address, with or without a port.")
        elif name == b"content-length":
            n_lengths += 1
            if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
                raise Problem(MALFORMED_REQUEST, "The header Content-Length is not a number of bytes.")
            n_bytes = int(value)
        elif name == b"transfer-encoding":
            codings += (coding.strip() for coding in value.lower().split(b","))
    if hosts > 1 or (not hosts and version == "1.1"):
        raise Problem(MALFORMED_REQUEST, "A request must have the header Host, and only once.")
    if n_lengths > 1 or (n_lengths and codings):
        raise Problem(MALFORMED_REQUEST, "A request may have one Content-Length or one Transfer-Encoding, not several or both.")
    if not codings:
        return n_bytes
    if version == "1.0":
        raise Problem(MALFORMED_REQUEST, "HTTP/1.0 has no Transfer-Encoding.")
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise Problem(MALFORMED_REQUEST, "A Transfer-Encoding must end with `chunked`, or nobody knows where the body ends.")
    if len(codings) > 1:
        raise Problem(UNSUPPORTED_TRANSFER_CODING, "The only Transfer-Encoding that is read is `chunked`.")
    return None


def with_path(url: bytes) -> bytes:
    """A target that names the server, as for a proxy, may leave out the path `/`."""
    if url.startswith((b"/", b"*")) or httptools.parse_url(url).path is not None:
        return url
    target, mark, query = url.partition(b"?")
    return target + b"/" + mark + query


def without_upgrade(method: str, url: bytes, version: str, headers: Headers) -> bytes:
    """The same head, with no other protocol proposed."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_TOKENS]
            lines.append(b"connection: " + b",".join(kept))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
