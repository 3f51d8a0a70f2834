"""The structure of a TIFF file: its tags, and the strips or tiles of its picture.

Every strip or tile is decoded on its own, from wherever its offset says. What is checked here keeps the work in proportion to
the pixels and to the bytes of the file.
"""

from __future__ import annotations

import ctypes
import math
import struct
from contextlib import suppress
from itertools import chain, product, repeat
from typing import Final

from PIL import _imaging

from service.errors import UNSUPPORTED_IMAGE_FORMAT, Problem
from service.images.jpeg import JpegChecks
from service.images.limits import ImageLimits, several_frames, too_complex
from service.images.tags import Tag, byte_order, read_tags

MAX_TIFF_VALUES: Final = 2**15
"""Values of one tag: each becomes a Python object, and each strip of an image becomes a dozen."""
TIFF_NUMBERS: Final = frozenset((3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 16, 17, 18))
"""Types whose values become objects; texts and bytes do not."""
TIFF_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 7, 8, 32773, 32946))
"""None, CCITT, LZW, JPEG, Deflate, PackBits. Others are rare, and some allot memory by what their data say."""
TIFF_UNCOMPRESSED, TIFF_JPEG = 1, 7
MAX_TILE_SURPLUS: Final = 2
"""Pixels of all tiles, as a multiple of the image's limit: tiles at the right and at the bottom reach beyond the image."""
IMAGE_WIDTH, IMAGE_HEIGHT, COMPRESSION, STRIP_HEIGHT, TILE_WIDTH, TILE_HEIGHT = 256, 257, 259, 278, 322, 323
OFFSETS, SIZES = (273, 324), (279, 325)
"""Tags of strips and of tiles; libtiff takes either for the other."""
INNER_DIRECTORIES: Final = frozenset((34665, 34853, 40965))
"""Tags with the offsets of the directories of EXIF, GPS and interoperability; Pillow reads them all."""
LAYOUT: Final = frozenset((IMAGE_WIDTH, IMAGE_HEIGHT, COMPRESSION, STRIP_HEIGHT, TILE_WIDTH, TILE_HEIGHT, *OFFSETS, *SIZES))
"""Tags that say where the pixels are. If one of them came twice, two readers could see two different pictures."""
_UNSIGNED: Final = {3: "H", 4: "I", 16: "Q"}
"""The types that offsets and sizes of strips and tiles have."""


def _silence_libtiff() -> bool:
    """Keep libtiff from writing to standard error; returns whether that could be done.

    Pillow turns off its warnings, but not its errors: for a damaged file of 142 bytes it writes a megabyte, a line for each row
    of pixels, bypassing the log and its format. Nothing is lost: the answer tells whoever sent the file that it is damaged.
    """
    try:
        # A symbol is also looked for in the libraries that Pillow's own is linked with, wherever they are.
        set_error_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return False
    set_error_handler.argtypes, set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    set_error_handler(None)  # for the whole process and for good; no thread decodes yet
    return True


LIBTIFF_IS_SILENT: Final = _silence_libtiff()
"""False where its functions cannot be found, as in Pillow's own builds for Windows, which have libtiff linked in."""


def check_tiff(data: bytes, limits: ImageLimits) -> None:
    """Raise a `Problem` for too many parts, or parts that are far more than the image; `struct.error` where the file ends."""
    order = byte_order(data)
    start = struct.unpack_from(order + "I", data, 4)[0]
    layout: dict[int, Tag] = {}
    tags = _read_directory(data, order, start)
    _check_inner_directories(data, order, tags)
    for tag in tags:
        if tag.number in layout:
            raise too_complex(f"tag {tag.number} twice")
        if tag.number in LAYOUT:
            layout[tag.number] = tag
    _check_compression(layout)
    _check_sizes(layout, limits)
    is_jpeg = _value(layout, COMPRESSION) == TIFF_JPEG
    for offsets, sizes in product([layout[tag] for tag in OFFSETS if tag in layout], _sizes(layout, is_jpeg)):
        pieces = _pieces(data, order, offsets, sizes)
        if sum(size for _, size in pieces) > len(data):
            raise too_complex("strips or tiles that share their bytes")
        if is_jpeg:
            # Each piece is a JPEG picture of its own and may be higher than the image; a progressive one is held whole.
            checks = JpegChecks(limits, len(pieces))
            for start, size in pieces:
                checks.check(data, start, start + size)
    if limits.refuse_several_frames and struct.unpack_from(order + "I", data, start + 2 + 12 * len(tags))[0]:
        raise several_frames()


def _read_directory(data: bytes, order: str, start: int) -> list[Tag]:
    tags = read_tags(data, order, start)
    for tag in tags:
        if tag.n_values > MAX_TIFF_VALUES and (tag.type_ in TIFF_NUMBERS or tag.number in LAYOUT):
            raise too_complex(f"a tag with more than {MAX_TIFF_VALUES} values")
    return tags


def _check_inner_directories(data: bytes, order: str, tags: list[Tag]) -> None:
    """Check one inner directory of each kind, as Pillow reads them; a directory may point at itself."""
    waiting, seen = list(tags), set[int]()
    while waiting:
        tag = waiting.pop()
        if tag.number in INNER_DIRECTORIES and tag.number not in seen:
            seen.add(tag.number)
            with suppress(struct.error):  # the file ends before it
                waiting += _read_directory(data, order, tag.value)


def _value(layout: dict[int, Tag], number: int) -> int:
    return layout[number].value if number in layout else 0


def _check_compression(layout: dict[int, Tag]) -> None:
    compression = _value(layout, COMPRESSION) if COMPRESSION in layout else TIFF_UNCOMPRESSED
    # Everything but uncompressed pixels is decoded by libtiff, which must not write to standard error.
    if compression not in TIFF_COMPRESSIONS or not (LIBTIFF_IS_SILENT or compression == TIFF_UNCOMPRESSED):
        raise Problem(UNSUPPORTED_IMAGE_FORMAT, "This compression of TIFF files is not supported. Save it as PNG.")


def _check_sizes(layout: dict[int, Tag], limits: ImageLimits) -> None:
    width, height = _value(layout, IMAGE_WIDTH), _value(layout, IMAGE_HEIGHT)
    tile_width, tile_height = _value(layout, TILE_WIDTH), _value(layout, TILE_HEIGHT)
    limits.check_size(width, height)
    limits.check_size(tile_width, tile_height)
    if not (tile_width and tile_height):
        return
    n_tiles = math.ceil(width / tile_width) * math.ceil(height / tile_height)
    if n_tiles * tile_width * tile_height > MAX_TILE_SURPLUS * limits.max_pixels:
        raise too_complex("tiles with far more pixels than the image")


def _sizes(layout: dict[int, Tag], needed: bool) -> list[Tag | None]:
    """The tags with the sizes of the pieces; `[None]` if they lack but are `needed`: pieces then reach to the file's end."""
    return [layout[tag] for tag in SIZES if tag in layout] or [None] * needed


def _pieces(data: bytes, order: str, offsets: Tag, sizes: Tag | None) -> list[tuple[int, int]]:
    """Offset and size of the strips or tiles that begin within the file, cut off at its end.

    Pieces that share their bytes are listed each, since each would be decoded.
    """
    starts = _values(data, order, offsets)
    lengths = (0,) if sizes is None else _values(data, order, sizes)
    if lengths == (0,):  # libtiff takes all bytes up to the end
        lengths = (len(data),) * len(starts)
    pairs = zip(chain(starts, repeat(0)), lengths, strict=False)  # libtiff takes missing offsets for 0
    return [(start, min(length, len(data) - start)) for start, length in pairs if start < len(data)]


def _values(data: bytes, order: str, tag: Tag) -> tuple[int, ...]:
    letter = _UNSIGNED.get(tag.type_)
    if letter is None:
        raise too_complex("strips or tiles whose places are no unsigned numbers")
    layout = f"{order}{tag.n_values}{letter}"
    start = tag.at if struct.calcsize(layout) <= 4 else struct.unpack_from(order + "I", data, tag.at)[0]
    return struct.unpack_from(layout, data, start)
