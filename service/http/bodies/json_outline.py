"""How deep the JSON of a request is nested and how many values it has, told without parsing it.

Text is parsed at a gigabyte a second, but millions of tiny values would hold up the event loop for seconds; in a thread too,
since the parser keeps the interpreter's lock. Without commas, brackets and quotes there cannot be many.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Final

from service.errors import JSON_TOO_DEEP, TOO_MANY_CROPS, Problem

MAX_COMMAS: Final = 1000
"""Beside those of the images, for members we do not know."""
MAX_COMMAS_PER_IMAGE: Final = 300
"""One before each image and one inside it, and those of an id or a `data:` prefix, which are text and may be all commas."""
MAX_MARKS_PER_COMMA: Final = 8
"""Brackets, quotes and backslashes."""
PIECE_BYTES: Final = 2**18

_NESTS: Final = (b"{", b"[", b" ", b"\t", b"\r", b"\n", BOM_UTF8)
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"\\'))
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')


def check_outline(body: bytes, max_crops: int, max_depth: int) -> None:
    """Raise a `Problem` for JSON that is nested too deeply, or has far more values than its images need."""
    max_commas = MAX_COMMAS + MAX_COMMAS_PER_IMAGE * max_crops
    far_more = Problem(
        TOO_MANY_CROPS, f"The JSON has far more values than {max_crops} images need (PARSEQ_MAX_CROPS_PER_REQUEST)."
    )
    if not body.startswith(_NESTS):
        return  # a single value, or no JSON
    if _more_commas(body, max_commas):
        raise far_more
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    marks = body.translate(None, _NO_MARKS)
    if _is_deeper(marks[: MAX_MARKS_PER_COMMA * max_commas], max_depth):
        detail = f"Lists and objects may be nested {max_depth} deep at most (PARSEQ_MAX_JSON_DEPTH)."
        raise Problem(JSON_TOO_DEEP, detail)
    if len(marks) > MAX_MARKS_PER_COMMA * max_commas:
        raise far_more


def _more_commas(body: bytes, max_commas: int) -> bool:
    """Piece by piece: where there are millions of commas, the first piece is enough."""
    commas = 0
    for start in range(0, len(body), PIECE_BYTES):
        commas += body.count(b",", start, start + PIECE_BYTES)
        if commas > max_commas:
            return True
    return False


def _is_deeper(marks: bytes, max_depth: int) -> bool:
    """Whether brackets are nested deeper; those within texts do not count."""
    depth = 0
    for bracket in _TEXT.sub(b"", marks).translate(None, b'"\\'):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            return True
    return False
