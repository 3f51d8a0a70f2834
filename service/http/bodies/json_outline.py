"""How deep the JSON of a request is nested and how many values it has, estimated without parsing it.

Long texts are parsed at a gigabyte a second, but millions of tiny values would hold up the event loop for seconds, even from a
thread, since the parser keeps the interpreter's lock. Counting commas, brackets and quotes bounds the number of values.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import Final

from service.errors import JSON_TOO_DEEP, TOO_MANY_CROPS, Problem
from service.http.turns import Turns

MAX_COMMAS: Final = 1000
"""Commas besides those of the images, for members we do not know."""
MAX_COMMAS_PER_IMAGE: Final = 300
"""One before each image and one inside it, and those within an id or a `data:` prefix, which may be all commas."""
MAX_COMMAS_PER_REGION: Final = 64
"""Eight or so are those of its numbers; the rest is for its id and for other members, such as a detector's score."""
MAX_MARKS_PER_COMMA: Final = 8
"""Brackets, quotes and backslashes."""
PIECE_BYTES: Final = 2**17
"""Bytes that are searched at once, in a fraction of a millisecond."""
BRACKETS_AT_ONCE: Final = 2**12

_NESTS: Final = (b"{", b"[", b" ", b"\t", b"\r", b"\n", BOM_UTF8)
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"\\'))
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')


@dataclass(frozen=True, slots=True)
class Listed:
    """What the JSON of a request lists."""

    name: str
    setting: str
    """Which limits their number."""
    max_commas: int
    """For each of them."""


IMAGES: Final = Listed("images", "PARSEQ_MAX_CROPS_PER_REQUEST", MAX_COMMAS_PER_IMAGE)
REGIONS: Final = Listed("regions", "PARSEQ_MAX_REGIONS", MAX_COMMAS_PER_REGION)


async def check_outline(body: bytes, max_crops: int, max_depth: int, listed: Listed = IMAGES) -> None:
    """Raise a `Problem` for JSON that is nested too deeply, or has far more values than it needs.

    Args:
        body: The JSON.
        max_crops: Images or regions, at most.
        max_depth: Lists and objects within one another, at most.
        listed: Which of the two it lists.
    """
    if not body.startswith(_NESTS):
        return  # a single value, or not JSON
    max_commas = MAX_COMMAS + listed.max_commas * max_crops
    max_marks = MAX_MARKS_PER_COMMA * max_commas
    far_more = Problem(TOO_MANY_CROPS, f"The JSON has far more values than {max_crops} {listed.name} need ({listed.setting}).")
    turns = Turns()
    commas, opened, marks = 0, 0, bytearray()
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        commas += piece.count(b",")
        if commas > max_commas:
            raise far_more  # where there are millions, the first piece is enough
        if len(marks) <= max_marks:
            piece = piece.translate(None, _NO_MARKS)
            marks += piece
        opened += piece.count(b"[") + piece.count(b"{")
        await turns.step()
    if opened <= max_depth:
        return
    if await _is_deeper(bytes(marks[:max_marks]), max_depth, turns):
        detail = f"Lists and objects may be nested {max_depth} deep at most (PARSEQ_MAX_JSON_DEPTH)."
        raise Problem(JSON_TOO_DEEP, detail)
    if len(marks) > max_marks:
        raise far_more


async def _is_deeper(marks: bytes, max_depth: int, turns: Turns) -> bool:
    """Whether brackets are nested deeper than that; those within texts do not count."""
    depth = 0
    brackets = _TEXT.sub(b"", marks).translate(None, b'"\\')
    for start in range(0, len(brackets), BRACKETS_AT_ONCE):
        await turns.step()
        for bracket in brackets[start : start + BRACKETS_AT_ONCE]:
            depth += 1 if bracket in b"[{" else -1
            if depth > max_depth:
                return True
    return False
