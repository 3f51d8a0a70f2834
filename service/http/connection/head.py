"""Checks of a head that the parser does not make (RFC 9112), and corrections before a head is used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import httptools

from service.errors import MALFORMED_REQUEST, UNSUPPORTED_TRANSFER_CODING, Problem

_HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.%~_-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_UPGRADE_TOKENS: Final = (b"upgrade", b"http2-settings")
MAX_LENGTH_DIGITS: Final = 20
"""Digits of a `Content-Length`: the parser counts with 64 bits."""

Headers = Iterable[tuple[bytes, bytes]]


def body_length(version: str, headers: Headers) -> int | None:
    """The length in bytes of the body that a head announces; `None`: it comes in chunks.

    Args:
        version: The version of HTTP, such as `1.1`.
        headers: Names in lower case, and values.

    Raises:
        Problem: The version is not supported, there is not exactly one valid `Host`, or the length is in doubt.
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
    """The request target with the path `/` added where it names a server, as for a proxy, and no path."""
    if url.startswith((b"/", b"*")) or httptools.parse_url(url).path is not None:
        return url
    target, mark, query = url.partition(b"?")
    return target + b"/" + mark + query


def without_upgrade(method: str, url: bytes, version: str, headers: Headers) -> bytes:
    """The head as bytes again, without the proposal of another protocol."""
    lines = [b"%b %b HTTP/%b" % (method.encode(), url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_TOKENS]
            lines.append(b"connection: " + b",".join(kept))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
