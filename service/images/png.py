"""The chunks of a PNG file."""

from __future__ import annotations

import struct
from typing import Final

from service.images.limits import ImageLimits, several_frames, too_complex

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_PNG_CHUNKS: Final = 10_000
"""A file at the limit of bytes, in pieces of 4 kB, has half as many."""
PLAIN_CHUNKS: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"tIME", b"tEXt")
)
"""Chunks that cost no more than their size; others may unpack to a thousand times their size, or take long to parse."""
_END: Final = b"IEND"


def _chunks(data: bytes, most: int) -> list[tuple[bytes, int]]:
    """Kind of each chunk and where its content begins: up to the last chunk, the end of the file or `most` chunks."""
    found: list[tuple[bytes, int]] = []
    position, kind = len(PNG_SIGNATURE), b""
    while kind != _END and len(found) < most and position + 8 <= len(data):
        n_bytes, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, position + 8))
        position += 12 + n_bytes
    return found


def check_png(data: bytes, limits: ImageLimits) -> None:
    """Raise a `Problem` for a PNG file with too many pixels, chunks or, where animations are refused, frames."""
    chunks = _chunks(data, MAX_PNG_CHUNKS)
    for kind, at in chunks:
        if kind == b"IHDR":
            limits.check_size(*struct.unpack_from(">II", data, at))
        elif kind == b"acTL" and limits.refuse_several_frames and struct.unpack_from(">I", data, at)[0] > 1:
            raise several_frames()
    if len(chunks) == MAX_PNG_CHUNKS and chunks[-1][0] != _END:
        raise too_complex(f"more than {MAX_PNG_CHUNKS} chunks")


def is_plain_png(data: bytes, most_chunks: int) -> bool:
    """Whether a PNG file is complete and has only few chunks, all of them `PLAIN_CHUNKS`."""
    chunks = _chunks(data, most_chunks)
    return bool(chunks) and chunks[-1][0] == _END and PLAIN_CHUNKS.issuperset([kind for kind, _ in chunks[:-1]])
