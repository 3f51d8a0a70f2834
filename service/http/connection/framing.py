"""Where requests end in the bytes that a client sends, found before they are parsed.

The parser consumes all it is given and cannot stop after one request. So it is given one request at a time: up to the end of
its head, then up to the end of its body. The parser checks whether the head is valid; only sizes are read here.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from service.errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, Problem

HEAD_END: Final = b"\r\n\r\n"
LINE_END: Final = b"\r\n"
MAX_CHUNK_LINE_BYTES: Final = 4096
"""The line with the size of a chunk and its extensions. A signature for each chunk takes about a hundred bytes."""
MAX_EXTENSION_BYTES: Final = 2**14
"""Extensions of all chunks of a body together; nothing reads them."""
FREE_CHUNKS: Final = 4096
"""So many chunks may be of any size; more must have `MIN_CHUNK_BYTES` each on average, or parsing costs far too much."""
MIN_CHUNK_BYTES: Final = 16
_SIZE_DIGITS: Final = 16
_BLANK: Final = re.compile(rb"[\r\n]*")
_CHUNK_SIZE: Final = re.compile(rb"0*([0-9A-Fa-f]{0,15})[ \t]*(?:;.*)?", re.DOTALL)


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    """A body of known length."""
    CHUNK_SIZE = auto()
    CHUNK = auto()
    TRAILERS = auto()


class Framing:
    """Finds the ends of one connection's requests.

    Args:
        max_trailer_bytes: Bytes of one trailer, at most.
    """

    def __init__(self, max_trailer_bytes: int) -> None:
        self._max_trailer_bytes = max_trailer_bytes
        self._phase = _Phase.HEAD
        self._left = 0
        """Bytes still to come of the body, or of the chunk and its line end."""
        self._tail = b""
        """The last bytes of an incomplete head, or all of an incomplete line."""
        self._chunks = self._chunk_bytes = self._extension_bytes = 0
        self.between_requests = True
        """Whether no request is incomplete."""

    def expect_body(self, n_bytes: int | None) -> None:
        """A head is complete: a body follows.

        Args:
            n_bytes: Length of the body; `None`: it comes in chunks.
        """
        self._tail = b""
        self._left = n_bytes or 0
        self._chunks = self._chunk_bytes = self._extension_bytes = 0
        self.between_requests = n_bytes == 0
        if n_bytes is None:
            self._phase = _Phase.CHUNK_SIZE
        else:
            self._phase = _Phase.BODY if n_bytes else _Phase.HEAD

    def end_of_piece(self, data: bytes, start: int) -> int:
        """The index up to which `data[start:]` may be parsed at once: the end of a head or message, or else the end of `data`.

        Raises:
            Problem: A chunk, its extensions or a trailer are malformed or exceed a limit.
        """
        if self._phase is _Phase.HEAD:
            return self._end_of_head(data, start)
        if self._phase is _Phase.BODY:
            n_bytes = min(self._left, len(data) - start)
            self._left -= n_bytes
            if not self._left:
                self._phase = _Phase.HEAD
                self.between_requests = True
            return start + n_bytes
        return self._end_of_chunks(data, start)

    def _end_of_head(self, data: bytes, start: int) -> int:
        if self._tail:
            overlap = (self._tail + data[start : start + 3]).find(HEAD_END)
            if overlap >= 0:
                return start + overlap + len(HEAD_END) - len(self._tail)
        else:
            blank = _BLANK.match(data, start)
            start = blank.end() if blank else start
        end = data.find(HEAD_END, start)
        if end >= 0:
            # The head counts as incomplete until it has been parsed.
            self._tail = b"\n"
            self.between_requests = False
            return end + len(HEAD_END)
        self._tail = (self._tail + data[max(start, len(data) - 3) :])[-3:]
        self.between_requests = not self._tail
        return len(data)

    def _end_of_chunks(self, data: bytes, start: int) -> int:
        while start < len(data):
            if self._phase is _Phase.CHUNK:
                n_bytes = min(self._left, len(data) - start)
                self._left -= n_bytes
                start += n_bytes
                if not self._left:
                    self._phase = _Phase.CHUNK_SIZE
                continue
            line, start = self._line(data, start)
            if line is None:
                continue
            if self._phase is _Phase.CHUNK_SIZE:
                self._begin_chunk(line)
            elif not line:
                self._phase = _Phase.HEAD
                self.between_requests = True
                return start
        return start

    def _line(self, data: bytes, start: int) -> tuple[bytes | None, int]:
        """A line without its line end, or `None` if that has not come yet; and where the next line begins."""
        if self._tail.endswith(b"\r") and data.startswith(b"\n", start):
            line, self._tail = self._tail[:-1], b""
            return line, start + 1
        end = data.find(LINE_END, start)
        line = self._tail + data[start : end if end >= 0 else len(data)]
        if self._phase is _Phase.TRAILERS:
            if len(line) > self._max_trailer_bytes:
                detail = f"A trailer may have {self._max_trailer_bytes} bytes at most (PARSEQ_MAX_HEAD_BYTES)."
                raise Problem(HEAD_TOO_LARGE, detail)
        elif len(line) > MAX_CHUNK_LINE_BYTES:
            raise _too_many_extensions()
        self._tail = b"" if end >= 0 else line
        return (line, end + len(LINE_END)) if end >= 0 else (None, len(data))

    def _begin_chunk(self, line: bytes) -> None:
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None or line[:1] in (b"", b";", b" ", b"\t"):
            raise Problem(MALFORMED_REQUEST, "The body is not in chunks as HTTP/1.1 has them.")
        n_bytes = int(size[1] or b"0", 16)
        self._extension_bytes += max(0, len(line) - _SIZE_DIGITS)
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise _too_many_extensions()
        self._chunks += 1
        self._chunk_bytes += n_bytes
        if self._chunks > FREE_CHUNKS + self._chunk_bytes // MIN_CHUNK_BYTES:
            detail = f"More than {FREE_CHUNKS} chunks must have {MIN_CHUNK_BYTES} bytes each in the mean: send larger ones."
            raise Problem(MALFORMED_REQUEST, detail)
        self._left = n_bytes + len(LINE_END)
        self._phase = _Phase.CHUNK if n_bytes else _Phase.TRAILERS


def _too_many_extensions() -> Problem:
    detail = f"The extensions of chunks may have {MAX_EXTENSION_BYTES} bytes at most, of one chunk {MAX_CHUNK_LINE_BYTES}."
    return Problem(MALFORMED_REQUEST, detail)
