"""Where requests end, whatever the pieces they come in."""

from __future__ import annotations

import random

import pytest

from service.errors import HEAD_TOO_LARGE, MALFORMED_REQUEST, Problem
from service.http.connection.framing import FREE_CHUNKS, MAX_CHUNK_LINE_BYTES, MAX_EXTENSION_BYTES, MIN_CHUNK_BYTES, Framing

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"
MAX_TRAILER_BYTES = 1000


def chunked(*chunks: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    lines = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return lines + b"0\r\n" + trailers + b"\r\n"


MESSAGES: list[tuple[bytes, int | None]] = [
    (b"", 0),
    (b"\r\n\r\nHOST", 8),
    (bytes(500), 500),
    (chunked(), None),
    (chunked(b"\r\n\r\n" * 9, b"0\r\n\r\n", b"x"), None),
    (chunked(b"abc", extension=b';name="value"'), None),
    (chunked(bytes(300), trailers=b"A: b\r\nC: d\r\n"), None),
    (b"0003 \r\nabc\r\n000;x\r\n\r\n", None),
]


def messages_in(pieces: list[bytes], lengths: list[int | None]) -> list[bytes]:
    """The messages that end in these pieces, as a parser of heads would see them; bodies have these lengths, in order."""
    framing, waiting = Framing(MAX_TRAILER_BYTES), iter(lengths)
    found, message, in_head = [], b"", True
    for piece in pieces:
        start = 0
        while start < len(piece):
            end = framing.end_of_piece(piece, start)
            assert end > start
            message += piece[start:end]
            start = end
            if in_head and message.lstrip().endswith(b"\r\n\r\n"):
                assert not framing.between_requests
                framing.expect_body(next(waiting))
                in_head = False
            if framing.between_requests and message.strip():
                found.append(message)
                message, in_head = b"", True
    assert not message.strip()
    return found


@pytest.mark.parametrize("seed", range(40))
def test_each_message_ends_where_it_ends(seed: int) -> None:
    chance = random.Random(seed)
    chosen = chance.choices(MESSAGES, k=12)
    sent = [b"\r\n" * chance.choice([0, 0, 1, 5]) + HEAD + body for body, _ in chosen]
    stream = b"".join(sent)
    cuts = sorted(chance.sample(range(1, len(stream)), chance.choice([0, 3, 30, len(stream) - 1])))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert messages_in(pieces, [length for _, length in chosen]) == sent


def test_blank_lines_are_no_request() -> None:
    framing = Framing(MAX_TRAILER_BYTES)
    for blank in (b"\r\n", b"\r\n\r\n\r\n", b"\n"):
        assert framing.end_of_piece(blank, 0) == len(blank)
        assert framing.between_requests


def problem_of(*pieces: bytes) -> Problem:
    framing = Framing(MAX_TRAILER_BYTES)
    framing.expect_body(None)
    for piece in pieces:
        try:
            assert framing.end_of_piece(piece, 0) == len(piece)
        except Problem as problem:
            return problem
    raise AssertionError("nothing was found wrong")


@pytest.mark.parametrize("line", [b"", b";x", b"g", b"-1", b"0x3", b" 3", b"f" * 16, b"3 3"])
def test_what_is_no_chunk_is_refused(line: bytes) -> None:
    assert problem_of(line + b"\r\n").kind is MALFORMED_REQUEST


def test_extensions_are_bounded_each_and_together() -> None:
    long = b"3;" + b"a" * MAX_CHUNK_LINE_BYTES
    several = [b"3;" + b"a" * 999 + b"\r\nabc\r\n"] * (MAX_EXTENSION_BYTES // 900)
    for pieces in ([long + b"\r\n"], [long[:99], long[99:]], several):
        assert "extensions" in problem_of(*pieces).detail


def test_tiny_chunks_are_bounded() -> None:
    tiny = b"1\r\nx\r\n"
    assert "chunks" in problem_of(tiny * (FREE_CHUNKS * 2)).detail
    framing = Framing(MAX_TRAILER_BYTES)
    framing.expect_body(None)
    fair = b"%x\r\n%b\r\n" % (MIN_CHUNK_BYTES, bytes(MIN_CHUNK_BYTES))
    for data in (tiny * (FREE_CHUNKS - 1), fair * (FREE_CHUNKS * 9)):
        assert framing.end_of_piece(data, 0) == len(data)


def test_a_trailer_without_end_is_bounded() -> None:
    assert problem_of(b"0\r\n", *([b"x" * 100] * 11)).kind is HEAD_TOO_LARGE
