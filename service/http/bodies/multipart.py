"""The images of a multipart/form-data body, parsed in memory: the body is bounded already, and disks may be read-only.

Nothing that was sent may be dropped silently: neither a part (`form_parts.py`) nor data around or between the parts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MALFORMED_REQUEST, TOO_MANY_FIELDS, Problem, too_many_crops
from service.http.bodies.form_parts import FilePart, TextPart, form_problem, holds_base64_image, is_binary, read_part
from service.http.turns import Turns

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_BOUNDARY_BYTES: Final = 70
"""The limit of RFC 2046."""
MAX_FALSE_DELIMITERS: Final = 64
MAX_STRAY_BOUNDARIES: Final = 4096
"""How often the boundary may occur within parts: a very short one may do so by chance."""
MAX_TEXT_AROUND_BYTES: Final = 1024
"""Text before the first delimiter and after the last one: RFC 2046 permits it, and nobody reads it."""
PIECE_BYTES: Final = 2**14
"""Bytes parsed at once, in about a millisecond even if they are only the heads of small parts."""

MAX_FOLDED_HEAD_BYTES: Final = 4096
"""Of a part whose headers go on in the next line, as libraries for e-mail write them."""
MAX_FOLDS: Final = 16
"""Of the headers of one part."""

_LINE_END: Final = re.compile(rb"--|[ \t]{0,64}\r?\n")
_FOLD: Final = re.compile(rb"(?<=[^\n])\r\n(?=[ \t])")


@dataclass(slots=True)
class _Collector:
    """Callbacks of the parser: keeps the images, and checks all other parts before they are dropped."""

    max_files: int
    max_fields: int
    wanted: Collection[str] = ()
    files: list[FilePart] = field(default_factory=list)
    texts: list[TextPart] = field(default_factory=list)
    ended: bool = False
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _content: BytesIO = field(default_factory=BytesIO)

    def part_begin(self) -> None:
        self._headers = {}
        self._content = BytesIO()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def header_end(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise Problem(MALFORMED_REQUEST, "A part of the form has the same header twice.")
        self._headers[name] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._content.write(memoryview(data)[start:end])

    def part_end(self) -> None:
        part = read_part(self._headers, self._content.getvalue(), self.wanted)
        if isinstance(part, FilePart):
            if len(self.files) == self.max_files:
                raise too_many_crops(self.max_files)
            self.files.append(part)
            return
        if len(self.texts) == self.max_fields:
            raise Problem(TOO_MANY_FIELDS, f"A form may have {self.max_fields} other fields at most (PARSEQ_MAX_FORM_FIELDS).")
        self.texts.append(part)

    def end(self) -> None:
        self.ended = True

    def check_names(self) -> None:
        """Refuse a text in a field that also holds an image: it was meant to be an image, but is the name of its file, say."""
        names = {file.name for file in self.files if file.name}
        for text in self.texts:
            if text.name in names and not text.empty:
                detail = "This field of the form has a file and a text too: send files only (curl: mind the @)."
                raise form_problem(text.name, detail)

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_end": self.end,
        }


async def parse_files(content_type: str, body: bytes, max_files: int, max_fields: int) -> list[FilePart]:
    """The images of a form, in order; fields of text are ignored. See `parse_form`."""
    return (await parse_form(content_type, body, max_files, max_fields))[0]


async def parse_form(
    content_type: str, body: bytes, max_files: int, max_fields: int, wanted: Collection[str] = ()
) -> tuple[list[FilePart], list[TextPart]]:
    """The images of a form and its other fields, in order.

    Args:
        content_type: The header's value, with the boundary.
        body: The whole body.
        max_files: Images in the form, at most.
        max_fields: Parts that are not images, at most.
        wanted: Names of fields that are no images and whose content is kept; all others are ignored.

    Raises:
        Problem: The body is not a complete form, it has too many images or other fields, or some of it would be lost.
    """
    delimiter = b"--" + _boundary_of(content_type)
    collector = _Collector(max_files, max_fields, wanted)
    delimiters = _Delimiters(delimiter, max_files + max_fields)
    first = delimiters.first_in(body)
    _check_around(body[:first])
    try:
        parser = MultipartParser(delimiter[2:], collector.callbacks())
        turns = Turns()
        for start in range(first, len(body), PIECE_BYTES):
            await turns.step()
            delimiters.check(body, start, start + PIECE_BYTES)
            parser.write(delimiters.unfolded(body[start : start + PIECE_BYTES], start))
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem(MALFORMED_REQUEST, "The body is not valid multipart/form-data.") from error
    if not collector.ended or delimiters.closed_at is None:
        raise Problem(MALFORMED_REQUEST, "The multipart/form-data body ends before its closing boundary.")
    _check_around(body[delimiters.closed_at :])
    collector.check_names()
    return collector.files, collector.texts


def _boundary_of(content_type: str) -> bytes:
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise Problem(MALFORMED_REQUEST, "The content type multipart/form-data has no boundary.")
    if len(boundary) > MAX_BOUNDARY_BYTES:
        raise Problem(MALFORMED_REQUEST, f"The boundary of the form has more than {MAX_BOUNDARY_BYTES} bytes.")
    return boundary


def _check_around(data: bytes) -> None:
    """Refuse data before or after the form unless it is a short text and not an image."""
    if len(data) > MAX_TEXT_AROUND_BYTES or is_binary(data) or holds_base64_image(data):
        raise Problem(MALFORMED_REQUEST, "There is data before the first boundary of the form, or after the last one.")


@dataclass(slots=True)
class _Delimiters:
    """Finds the boundary, independently of the parser.

    Refuses parts with very many beginnings of a delimiter, which cost the parser far more than other bytes; and delimiters that
    the parser would not recognise, since the part after one would be taken for the end of the part before it.
    """

    delimiter: bytes
    max_parts: int
    first: int = 0
    closed_at: int | None = None
    """Offset at which the closing delimiter ends, once it is found."""
    true: int = 0
    false: int = 0
    stray: int = 0
    _folds: list[int] = field(default_factory=list)
    """Where a line of a header ends that goes on in the next; the parser does not know such headers."""

    def first_in(self, body: bytes) -> int:
        """Offset at which the first delimiter begins.

        Raises:
            Problem: There is none near the beginning of the body.
        """
        if not body.startswith(self.delimiter):
            line = b"\r\n" + self.delimiter
            self.first = body.find(line, 0, MAX_TEXT_AROUND_BYTES + len(line)) + 2
            if self.first < 2:
                raise Problem(MALFORMED_REQUEST, "The body does not begin with the boundary in its Content-Type.")
        return self.first

    def check(self, body: bytes, start: int, end: int) -> None:
        """Check the delimiters that begin in `body[start:end]`.

        Raises:
            Problem: One is malformed, or there are far too many.
        """
        end += len(self.delimiter) - 1
        position = body.find(self.delimiter, start, end)
        while position >= 0 and self.true <= self.max_parts + 1:  # after it the parser refuses everything
            begins_line = position == self.first or body.startswith(b"\r\n", position - 2)
            position += len(self.delimiter)
            line_end = _LINE_END.match(body, position)
            if line_end is not None:
                self._note_line(line_end, begins_line)
            elif begins_line:
                self.false += 1
            else:
                self.stray += 1
            if self.false > MAX_FALSE_DELIMITERS or self.stray > MAX_STRAY_BOUNDARIES:
                raise Problem(MALFORMED_REQUEST, "The boundary of the form occurs far too often in its parts.")
            position = body.find(self.delimiter, position, end)

    def _note_line(self, line_end: re.Match[bytes], begins_line: bool) -> None:
        if self.closed_at is not None:
            raise Problem(MALFORMED_REQUEST, "The form goes on after its closing boundary.")
        closing = line_end[0] == b"--"
        if not begins_line or not (closing or line_end[0].endswith(b"\r\n")):
            detail = "A boundary of the form is not in a line of its own: CR LF must come before it and after it."
            raise Problem(MALFORMED_REQUEST, detail)
        self.true += 1
        if closing:
            self.closed_at = line_end.end()
        else:
            self._note_folds(line_end.string, line_end.end())

    def _note_folds(self, body: bytes, head_at: int) -> None:
        head_end = body.find(b"\r\n\r\n", head_at - 2, head_at + MAX_FOLDED_HEAD_BYTES)  # before it if there are no headers
        folds = _FOLD.finditer(body, head_at, max(head_at, head_end))
        self._folds += [fold.start() for fold in islice(folds, MAX_FOLDS)]

    def unfolded(self, piece: bytes, start: int) -> bytes:
        """A piece of the body, from `start` on, with blanks where the lines of a header are joined."""
        if not self._folds:
            return piece
        joined = bytearray(piece)
        for at in (at for fold in self._folds for at in (fold - start, fold + 1 - start) if 0 <= at < len(piece)):
            joined[at] = 0x20
        self._folds = [fold for fold in self._folds if fold + 1 >= start + len(piece)]
        return bytes(joined)
