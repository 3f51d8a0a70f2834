"""What inference protocols have in common: JSON that may be compressed, and errors as one sentence in JSON."""

from __future__ import annotations

import zlib
from codecs import BOM_UTF8
from functools import partial
from io import BytesIO
from typing import Any, Final

from pydantic_core import from_json

from service.errors import (
    EMPTY_BODY,
    INVALID_REQUEST,
    JSON_TOO_LARGE,
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    body_too_large,
)
from service.http.bodies.body import Body
from service.http.bodies.json_outline import MAX_COMMAS, check_outline
from service.http.dialects.v1_answers import encode_json
from service.http.dialects.v1_bodies import BodyLimits
from service.http.head import Head
from service.http.problems import Answer
from service.http.turns import Turns

JSON_TYPE: Final = "application/json"
"""Without a charset: KServe's client reads the message of an error only if the header is exactly this."""
MAX_TOLD_CHARACTERS: Final = 40
INFLATE_BYTES: Final = 2**14
"""Bytes of a compressed body that are unpacked at a time."""
INFLATED_BYTES: Final = 2**17
"""Unpacked bytes at a time, at most; they take some tenths of a millisecond."""
GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
ENCODINGS: Final = (b"gzip", b"x-gzip", b"deflate")


def error_document(problem: Problem) -> Answer:
    """A problem as inference protocols word it: `{"error": "..."}`."""
    headers = tuple([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()])
    return Answer(problem.status, encode_json({"error": problem.detail}).encode(), JSON_TYPE, headers)


def invalid(detail: str) -> Problem:
    """The problem of a request that can be parsed but is not valid."""
    return Problem(INVALID_REQUEST, detail)


def told(value: object) -> str:
    """A value from a request, shortened for an error message."""
    text = str(value)
    return f"`{text[:MAX_TOLD_CHARACTERS]}...`" if len(text) > MAX_TOLD_CHARACTERS else f"`{text}`"


async def read_body(head: Head, body: Body, limits: BodyLimits, most_bytes: int) -> bytes:
    """The body, decompressed if need be; one of more than `most_bytes` is refused before all of it is in memory.

    Raises:
        Problem: It is empty or too large, its content encoding is broken or not supported, or there is no room for it.
    """
    encoding = head.headers.get(b"content-encoding", b"").strip().lower()
    if encoding not in (b"", b"identity", *ENCODINGS):
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "Of content encodings, gzip and deflate are supported.")
    too_large = partial(_too_large, limits)
    data = await body.read(most_bytes, too_large)
    if encoding in ENCODINGS:
        data = await _inflated(data, body, most_bytes, limits)
    if not data:
        raise Problem(EMPTY_BODY, "The request has no body.")
    return data


def _too_large(limits: BodyLimits, n_bytes: float) -> Problem:
    if n_bytes > limits.max_bytes:
        return body_too_large(limits.max_bytes)
    return json_too_large(limits)


def json_too_large(limits: BodyLimits) -> Problem:
    """The refusal of too much JSON; the detail names the setting."""
    detail = f"JSON may have {limits.max_json_bytes} bytes at most (PARSEQ_MAX_JSON_BYTES). Binary tensors may be larger."
    return Problem(JSON_TOO_LARGE, detail)


async def _inflated(data: bytes, body: Body, most_bytes: int, limits: BodyLimits) -> bytes:
    packed, unpacked, turns = zlib.decompressobj(GZIP_OR_ZLIB), BytesIO(), Turns()
    try:
        for start in range(0, len(data), INFLATE_BYTES):
            piece = data[start : start + INFLATE_BYTES]
            while piece and not packed.eof:
                some = packed.decompress(piece, INFLATED_BYTES)
                piece = packed.unconsumed_tail
                body.hold(len(some))
                unpacked.write(some)
                if unpacked.tell() > most_bytes:
                    raise _too_large(limits, unpacked.tell())
                await turns.step()
            if packed.eof:
                break
    except zlib.error:
        raise _broken() from None
    if data and (not packed.eof or packed.unused_data or start + INFLATE_BYTES < len(data)):
        raise _broken()
    body.hold(-len(data))
    return unpacked.getvalue()


def _broken() -> Problem:
    return Problem(MALFORMED_REQUEST, "The body is not what its Content-Encoding says, or it is cut off.")


async def read_object(data: bytes, limits: BodyLimits) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        Problem: It is something else, nested too deeply, or has far more values than images need.
    """
    # Short JSON with few brackets can have neither many values nor deep nesting; most heads of binary tensors are such.
    if len(data) > MAX_COMMAS or data.count(b"[") + data.count(b"{") > limits.max_json_depth:
        await check_outline(data, limits.max_crops, limits.max_json_depth)
    try:
        document = from_json(data.removeprefix(BOM_UTF8), allow_inf_nan=False, cache_strings=False)
    except ValueError:
        raise Problem(MALFORMED_REQUEST, "The request is not valid JSON.") from None
    if not isinstance(document, dict):
        raise invalid("The request must be a JSON object.")
    return document
