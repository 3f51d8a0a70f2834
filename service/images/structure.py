"""The structure of an image file, checked before a decoder sees it.

The number of pixels does not bound what a file costs: a decoder may go through millions of empty chunks, thousands of scans, or
a tile far larger than the image. Here the parts of a file are counted; the limits below also bound what the counting costs.
Whether the file is sound is left to the decoder: a walk over a damaged file just ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from service.images.jpeg import JPEG_SIGNATURE, check_jpeg
from service.images.limits import ImageLimits, several_frames, too_complex
from service.images.png import PNG_SIGNATURE, check_png
from service.images.tiff import check_tiff
from service.images.webp import check_webp

MAX_GIF_BLOCKS: Final = 10_000
"""Before the first image."""
MAX_GIF_IMAGE_BLOCKS: Final = 2**17
MAX_RLE_PIXELS: Final = 2**18
MAX_RLE_BYTES: Final = 2**20
"""Run lengths of BMP files are decoded in pure Python: about a second for a million."""

_SIGNATURES: Final = (
    (JPEG_SIGNATURE, "JPEG"),
    (PNG_SIGNATURE, "PNG"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


def format_of(data: bytes) -> str | None:
    """Pillow's name of the format that the first bytes announce."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    return None


def check_structure(data: bytes, format_: str, limits: ImageLimits) -> None:
    """Raise a `Problem` for a file with too many parts or, where animations are refused, frames."""
    try:
        _CHECKS[format_](data, limits)
    except (struct.error, IndexError):
        return  # truncated, which the decoder reports


def _check_bmp(data: bytes, limits: ImageLimits) -> None:
    header_bytes = struct.unpack_from("<I", data, 14)[0]
    if header_bytes < 40:  # an older header, without compression
        limits.check_size(*struct.unpack_from("<HH", data, 18))
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    limits.check_size(abs(width), abs(height))
    if compression in (1, 2) and (width * abs(height) > MAX_RLE_PIXELS or len(data) > MAX_RLE_BYTES):
        raise too_complex(f"run lengths, with which an image may have {MAX_RLE_PIXELS} pixels and {MAX_RLE_BYTES} bytes")


def _check_gif(data: bytes, limits: ImageLimits) -> None:
    position, blocks, images = 13 + _colour_table_bytes(data[10]), 0, 0
    while True:
        kind = data[position]
        if kind == 0x2C:
            images += 1
            if images == 1:
                _check_gif_size(data, position, limits)
            if not limits.refuse_several_frames:
                return
            if images > 1:
                raise several_frames()
            position += 10 + _colour_table_bytes(data[position + 9]) + 1  # the last byte is the size of LZW codes
        elif kind == 0x21:
            position += 2
        elif kind == 0x3B:
            return
        else:
            position, blocks = position + 1, blocks + 1
        while kind in (0x2C, 0x21) and data[position]:
            position, blocks = position + 1 + data[position], blocks + 1
            if blocks > (MAX_GIF_IMAGE_BLOCKS if images else MAX_GIF_BLOCKS):
                raise too_complex("too many blocks")
        position, blocks = position + (kind in (0x2C, 0x21)), blocks + 1
        if blocks > MAX_GIF_IMAGE_BLOCKS:
            raise too_complex("too many blocks")


def _check_gif_size(data: bytes, frame_at: int, limits: ImageLimits) -> None:
    """The first frame may reach beyond the size in the header; the picture is then large enough for both."""
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, frame_at + 1)
    limits.check_size(max(width, left + frame_width), max(height, top + frame_height))


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_CHECKS: Final[dict[str, Callable[[bytes, ImageLimits], None]]] = {
    "JPEG": check_jpeg,
    "PNG": check_png,
    "WEBP": check_webp,
    "BMP": _check_bmp,
    "GIF": _check_gif,
    "TIFF": check_tiff,
}
