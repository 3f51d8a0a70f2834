"""The files of a multipart/form-data body, parsed in memory: the body is bounded already, and disks may be read-only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MALFORMED_REQUEST, TOO_MANY_FIELDS, Problem, too_many_crops

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_BOUNDARY_BYTES: Final = 70
"""As RFC 2046 has it."""
MAX_FALSE_DELIMITERS: Final = 64
"""The last one of the form among them."""
PIECE_BYTES: Final = 2**20
"""Parsed at once, in about a millisecond; then whatever else the event loop has to do gets its turn."""


@dataclass(slots=True)
class FilePart:
    """One file of a form."""

    filename: str
    content: bytes


@dataclass(slots=True)
class _Collector:
    """Callbacks of the parser: keeps parts that have a filename, skips plain fields."""

    max_files: int
    max_fields: int
    fields: int = 0
    files: list[FilePart] = field(default_factory=list)
    ended: bool = False
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _filename: str | None = None
    _content: BytesIO = field(default_factory=BytesIO)

    def part_begin(self) -> None:
        self._filename = None
        self._content = BytesIO()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            if b"filename" in options:
                self._filename = options[b"filename"].decode("utf-8", "replace")
        self._header_name, self._header_value = bytearray(), bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is not None:
            self._content.write(memoryview(data)[start:end])

    def part_end(self) -> None:
        # A browser sends a file input that was left empty as a file without name and content.
        if self._filename or self._content.tell():
            if len(self.files) == self.max_files:
                raise too_many_crops(self.max_files)
            self.files.append(FilePart(self._filename or "", self._content.getvalue()))
            return
        self.fields += 1
        if self.fields > self.max_fields:
            raise Problem(TOO_MANY_FIELDS, f"A form may have {self.max_fields} other fields at most (PARSEQ_MAX_FORM_FIELDS).")

    def end(self) -> None:
        self.ended = True

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
    """The parts of a form that have a filename, in order; other fields are ignored.

    Args:
        content_type: The header's value, with the boundary.
        body: The whole body.
        max_files: Files in the form, at most.
        max_fields: Parts that are no files, at most; they are ignored.

    Raises:
        Problem: the body is not a complete form, or it has too many files or other fields.
    """
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise Problem(MALFORMED_REQUEST, "The content type multipart/form-data has no boundary.")
    if len(boundary) > MAX_BOUNDARY_BYTES:
        raise Problem(MALFORMED_REQUEST, f"The boundary of the form has more than {MAX_BOUNDARY_BYTES} bytes.")
    collector, delimiters = _Collector(max_files, max_fields), _Delimiters(b"\r\n--" + boundary, max_files + max_fields)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        for start in range(0, len(body), PIECE_BYTES):
            if start:
                await asyncio.sleep(0)
            delimiters.check(body, start, start + PIECE_BYTES)
            parser.write(body[start : start + PIECE_BYTES])
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem(MALFORMED_REQUEST, "The body is not valid multipart/form-data.") from error
    if not collector.ended:
        raise Problem(MALFORMED_REQUEST, "The multipart/form-data body ends before its closing boundary.")
    return collector.files


@dataclass(slots=True)
class _Delimiters:
    """Refuses what looks like the end of a part again and again: it costs the parser far more than other bytes."""

    delimiter: bytes
    max_parts: int
    true: int = 0
    false: int = 0

    def check(self, body: bytes, start: int, end: int) -> None:
        """Count those that begin in `body[start:end]`."""
        end += len(self.delimiter) - 1
        position = body.find(self.delimiter, start, end)
        while position >= 0 and self.true <= self.max_parts:  # beyond it the parser refuses the form
            position += len(self.delimiter)
            if body.startswith(b"\r\n", position):
                self.true += 1
            else:
                self.false += 1
            if self.false > MAX_FALSE_DELIMITERS:
                raise Problem(MALFORMED_REQUEST, "The boundary of the form occurs far too often in its parts.")
            position = body.find(self.delimiter, position, end)
