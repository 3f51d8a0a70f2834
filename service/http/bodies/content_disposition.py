"""The header `Content-Disposition` of a part of a form: what the field is called, and the file.

RFC 7578 wants the file's name in UTF-8 as it is. Clients that follow RFC 5987 (RFC 8187 now) write it as `filename*` in
percent-encoding, often beside a `filename` that could not hold it; those that follow RFC 2231 also cut it into pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

from service.errors import MALFORMED_REQUEST, Problem

CHARSETS: Final = {b"utf-8": "utf-8", b"utf8": "utf-8", b"iso-8859-1": "latin-1", b"us-ascii": "ascii", b"": "utf-8"}
"""Charsets of an extended value: RFC 8187 has UTF-8 only, RFC 5987 also ISO-8859-1."""
MAX_SEMICOLONS: Final = 64
"""Limits the parameters: reading thousands of them takes milliseconds, for each part of a form."""

_PARAMETER: Final = re.compile(rb';[ \t]*([^;="\s]+)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|[^;]*)', re.S)
_EXTENDED_NAME: Final = re.compile(rb"filename\*(?:(\d{1,3})(\*?))?")
_EXTENDED_VALUE: Final = re.compile(rb"([^']*)'[^']*'(.*)", re.S)


@dataclass(frozen=True, slots=True)
class Disposition:
    """The name and file name that the header gives."""

    name: str = ""
    """Name of the form's field."""
    filename: str | None = None
    """`None`: not given. Empty: a browser's file input that was left empty, or a client that does not name its files."""


def parse_disposition(value: bytes) -> Disposition:
    """Read the header; `filename*` wins over `filename`, unless it cannot be decoded.

    Raises:
        Problem: It has more than `MAX_SEMICOLONS` parameters.
    """
    if value.count(b";") > MAX_SEMICOLONS:
        raise Problem(MALFORMED_REQUEST, f"A part of the form has more than {MAX_SEMICOLONS} parameters in its header.")
    _, options = parse_options_header(value)
    plain = options.get(b"filename")
    filename = None if plain is None else plain.decode("utf-8", "replace")
    if b"*" in value:
        filename = _extended_filename(value, filename)
    return Disposition(options.get(b"name", b"").decode("utf-8", "replace"), filename)


def _extended_filename(header: bytes, plain: str | None) -> str | None:
    pieces: dict[int, bytes] = {}
    encoded = False
    for match in _PARAMETER.finditer(header):
        name = _EXTENDED_NAME.fullmatch(match[1].lower())
        if name is not None:
            pieces[int(name[1] or 0)] = match[2].strip().strip(b'"')
            encoded |= name[2] != b""  # `filename*` and `filename*0*`, not `filename*0`
    if not pieces:
        return plain
    whole = b"".join(pieces[index] for index in sorted(pieces))
    as_sent = whole.decode("utf-8", "replace")
    decoded = _decode(whole) if encoded else as_sent
    return decoded or plain or (as_sent if decoded is None else "")


def _decode(value: bytes) -> str | None:
    match = _EXTENDED_VALUE.fullmatch(value)
    if match is None or match[1].lower() not in CHARSETS:
        return None
    try:
        return unquote_to_bytes(match[2]).decode(CHARSETS[match[1].lower()])
    except UnicodeDecodeError:
        return None
