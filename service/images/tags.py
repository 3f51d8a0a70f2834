"""The tags of a TIFF file and of EXIF, which has the same form: read only to know what parsing them would cost.

A tag with a long value has an offset instead. Many tags may have the same offset, and a parser copies the bytes for each of
them: a file of 50 kB becomes gigabytes. So the values of all tags together may be little larger than the file.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from service.images.limits import too_complex

MAX_TAGS: Final = 512
"""Tags of one directory. Files of cameras and scanners have up to a hundred."""
MAX_EXIF_BYTES: Final = 2**17
"""Twice what one segment of a JPEG file can hold."""
MAX_TAG_SURPLUS: Final = 2
"""Bytes of all values together, as a multiple of the file's: damaged tags may reach into the values of others."""
EXIF_HEAD: Final = b"Exif\0\0"

_VALUE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by type; parsers skip other types."""
_TAG_BYTES: Final = 12
_INLINE_BYTES: Final = 4
"""Largest value that is held in the tag itself."""


class Tag(NamedTuple):
    """One entry of a directory."""

    number: int
    type_: int
    n_values: int
    value: int
    """The value, if there is only one."""
    at: int
    """Where in the data the value, or the offset to the values, is."""


def byte_order(data: bytes) -> str:
    """The byte order as `struct` writes it, `<` or `>`."""
    return "<" if data.startswith(b"II") else ">"


def read_tags(data: bytes, order: str, start: int) -> list[Tag]:
    """The tags of the directory at `start`, as many as the data holds.

    Raises:
        Problem: It has too many tags, or values that share their bytes.
        struct.error: `start` is beyond the end.
    """
    n_tags = min(struct.unpack_from(order + "H", data, start)[0], (len(data) - start - 2) // _TAG_BYTES)
    if n_tags > MAX_TAGS:
        raise too_complex(f"more than {MAX_TAGS} tags")
    tags = [_read_tag(data, order, start + 2 + _TAG_BYTES * index) for index in range(n_tags)]
    if sum(_far_bytes(data, order, tag) for tag in tags) > MAX_TAG_SURPLUS * len(data):
        raise too_complex("tags that share their bytes")
    return tags


def _read_tag(data: bytes, order: str, at: int) -> Tag:
    number, type_, count = struct.unpack_from(order + "HHI", data, at)
    value = struct.unpack_from(order + ("H" if type_ == 3 else "I"), data, at + 8)[0]
    return Tag(number, type_, count, value, at + 8)


def _far_bytes(data: bytes, order: str, tag: Tag) -> int:
    """Bytes of this tag's values that are elsewhere in the file."""
    n_bytes = tag.n_values * _VALUE_BYTES.get(tag.type_, 0)
    if n_bytes <= _INLINE_BYTES:
        return 0
    return max(0, min(n_bytes, len(data) - int(struct.unpack_from(order + "I", data, tag.at)[0])))


def check_exif(exif: bytes) -> None:
    """Raise a `Problem` for EXIF that costs far more than its size; broken EXIF is left to the parser, which gives it up.

    Args:
        exif: With or without the six bytes before it in a JPEG file.
    """
    while exif.startswith(EXIF_HEAD):
        exif = exif[len(EXIF_HEAD) :]
    try:
        order = byte_order(exif)
        read_tags(exif, order, struct.unpack_from(order + "I", exif, 4)[0])
    except struct.error:
        return
