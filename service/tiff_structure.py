"""The structure of a TIFF file: its tags, and the strips or tiles that its picture is made of.

Every strip or tile is decoded on its own, from wherever its offset says. What is checked here keeps the work in proportion to
the pixels and to the bytes of the file.
"""

from __future__ import annotations

import math
import re
import struct
from itertools import chain, product, repeat
from typing import Final, NamedTuple

from service.errors import UNSUPPORTED_IMAGE_FORMAT, Problem
from service.image_limits import ImageLimits, several_frames, too_complex
from service.jpeg_scans import check_scans

MAX_TIFF_TAGS: Final = 512
MAX_TIFF_VALUES: Final = 2**15
"""Of one tag: each becomes a Python object, and each strip of an image a dozen."""
TIFF_NUMBERS: Final = frozenset((3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 16, 17, 18))
"""Types whose values become objects; texts and bytes do not."""
TIFF_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))
"""None, CCITT, LZW, JPEG, Deflate, PackBits. Others are rare, and some allot memory by what their data say."""
TIFF_JPEG: Final = 7
JPEG_FRAME: Final = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf](?=(\x00.{7}))", re.DOTALL)
"""The start of a frame: its length, precision, height, width and number of components. Within coded pixels there is none."""
MAX_TILE_SURPLUS: Final = 2
"""Pixels of all tiles, of those that an image may have: tiles at the right and at the bottom reach beyond the image."""
IMAGE_WIDTH, IMAGE_HEIGHT, COMPRESSION, STRIP_HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 259, 278, 322, 323
OFFSETS, SIZES = (273, 324), (279, 325)
"""Of strips and of tiles; libtiff does not mind which of the two a file has."""
LAYOUT: Final = frozenset((IMAGE_WIDTH, IMAGE_HEIGHT, COMPRESSION, STRIP_HEIGHT, TILE_WIDTH, TILE_HEIGHT, *OFFSETS, *SIZES))
"""What says where the pixels are. Twice the same of them, and two readers would see two different pictures."""
_UNSIGNED: Final = {3: "H", 4: "I", 16: "Q"}
"""The types that offsets and sizes of strips and tiles have."""


class _Tag(NamedTuple):
    type_: int
    n_values: int
    value: int
    """If there is but one."""
    at: int
    """Where it stands, or an offset to them."""


def check_tiff(data: bytes, limits: ImageLimits) -> None:
    """Raise a `Problem` for too many parts, or parts that are far more than the image; `struct.error` where the file ends."""
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    n_tags = struct.unpack_from(order + "H", data, start)[0]
    if n_tags > MAX_TIFF_TAGS:
        raise too_complex(f"more than {MAX_TIFF_TAGS} tags")
    layout: dict[int, _Tag] = {}
    for index in range(n_tags):
        number, tag = _read_tag(data, order, start + 2 + 12 * index)
        if number in layout:
            raise too_complex(f"tag {number} twice")
        if number in LAYOUT:
            layout[number] = tag
    _check_compression(layout)
    n_pieces = _check_sizes(layout, limits)
    if _value(layout, COMPRESSION) == TIFF_JPEG:
        check_scans(data, n_pieces)
        _check_jpeg_frames(data, limits)
    for offsets, sizes in product(OFFSETS, SIZES):
        if offsets in layout and sizes in layout:
            _check_shared_bytes(data, _values(data, order, layout[offsets]), _values(data, order, layout[sizes]))
    if limits.refuse_several_frames and struct.unpack_from(order + "I", data, start + 2 + 12 * n_tags)[0]:
        raise several_frames()


def _read_tag(data: bytes, order: str, at: int) -> tuple[int, _Tag]:
    number, type_, count = struct.unpack_from(order + "HHI", data, at)
    if count > MAX_TIFF_VALUES and (type_ in TIFF_NUMBERS or number in LAYOUT):
        raise too_complex(f"a tag with more than {MAX_TIFF_VALUES} values")
    value = struct.unpack_from(order + ("H" if type_ == 3 else "I"), data, at + 8)[0]
    return number, _Tag(type_, count, value, at + 8)


def _value(layout: dict[int, _Tag], number: int) -> int:
    return layout[number].value if number in layout else 0


def _check_compression(layout: dict[int, _Tag]) -> None:
    if COMPRESSION in layout and _value(layout, COMPRESSION) not in TIFF_COMPRESSIONS:
        raise Problem(UNSUPPORTED_IMAGE_FORMAT, "This compression of TIFF files is not supported. Save it as PNG.")


def _check_sizes(layout: dict[int, _Tag], limits: ImageLimits) -> int:
    """The number of strips or tiles."""
    width, height = _value(layout, IMAGE_WIDTH), _value(layout, IMAGE_HEIGHT)
    tile_width, tile_height = _value(layout, TILE_WIDTH), _value(layout, TILE_HEIGHT)
    limits.check_size(width, height)
    limits.check_size(tile_width, tile_height)
    if not (tile_width and tile_height):
        return math.ceil(height / (_value(layout, STRIP_HEIGHT) or height or 1))
    n_tiles = math.ceil(width / tile_width) * math.ceil(height / tile_height)
    if n_tiles * tile_width * tile_height > MAX_TILE_SURPLUS * limits.max_pixels:
        raise too_complex("tiles with far more pixels than the image")
    return n_tiles


def _check_jpeg_frames(data: bytes, limits: ImageLimits) -> None:
    """The picture in the last strip may be higher than the image, and a progressive one is held whole."""
    for frame in JPEG_FRAME.finditer(data):
        n_bytes, height, width, n_components = struct.unpack(">HxHHB", frame[1])
        if n_bytes == 8 + 3 * n_components:
            limits.check_size(width, height)


def _check_shared_bytes(data: bytes, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """Strips or tiles that are all made of the same bytes would each be decoded."""
    pieces = zip(chain(offsets, repeat(0)), sizes, strict=False)  # for libtiff, offsets that are missing are 0
    present = (min(size, len(data) - offset) for offset, size in pieces if offset < len(data))
    if sum(present) > len(data):
        raise too_complex("strips or tiles that share their bytes")


def _values(data: bytes, order: str, tag: _Tag) -> tuple[int, ...]:
    letter = _UNSIGNED.get(tag.type_)
    if letter is None:
        raise too_complex("strips or tiles whose places are no unsigned numbers")
    layout = f"{order}{tag.n_values}{letter}"
    start = tag.at if struct.calcsize(layout) <= 4 else struct.unpack_from(order + "I", data, tag.at)[0]
    return struct.unpack_from(layout, data, start)
