"""The structure of a WebP file: its chunks, and how many prefix codes its lossless parts ask for.

A lossless picture, or the lossless alpha of a lossy one, may be divided into blocks, each of which names one of up to 65,536
groups of prefix codes. The decoder allots tables for every group, 6 to 20 kB each, however small the file. How many there are
is known once the small pictures before the pixels have been read: the parameters of transforms, and the groups of the blocks.
They are read here as RFC 9649 has them. Data that the decoder would call damaged are left to it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from service.images.limits import ImageLimits, several_frames, too_complex

MAX_WEBP_CHUNKS: Final = 10_000
"""Those within frames are counted as well; a frame has up to three."""
MAX_WEBP_STREAMS: Final = 2
"""Lossless streams that may be the picture's; an intact file has one."""
MAX_WEBP_GROUPS: Final = 2600
"""Groups of prefix codes. The usual encoder makes no more; ordinary files of 4 megapixels had up to 24."""
MIN_BLOCK_PIXELS: Final = 128
"""Pixels of a block on average, in the largest picture allowed. The usual encoder's blocks have 256 or more at that size."""
MIN_SUB_IMAGE_PIXELS: Final = 2**15
"""Pixels that a picture of blocks may have in any case, however low the limit of pixels is."""

_ANIMATED: Final = 2
_FRAME_HEADER_BYTES: Final = 16
_SIGNATURE: Final = b"\x2f"
_PREDICTOR, _COLOUR, _SUBTRACT_GREEN, _COLOUR_INDEXING = range(4)
_N_LITERALS: Final = 256
_N_LENGTHS: Final = 24
_N_DISTANCES: Final = 40
_MAX_CACHE_BITS: Final = 11
_MAX_CODE_BITS: Final = 15
_HASH_FACTOR: Final = 0x1E35A7BD
_ORDER_OF_LENGTHS: Final = (17, 18, 0, 1, 2, 3, 4, 5, 16, *range(6, 16))
_REPEATS: Final = {16: (2, 3), 17: (3, 3), 18: (7, 11)}
"""By symbol: how many bits follow that say how often a code length is repeated, and what is added to them."""
_NEAR: Final = sorted(
    ((x, y) for y in range(8) for x in range(-7, 9) if y or x > 0),
    key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, abs(offset[0]), -offset[0]),
)
"""Pixels to the left and rows above for each of the first 120 distance codes, sorted by nearness."""

_Table = list[int]
"""A prefix code as 2^n entries, indexed by the next n bits, the first bit lowest: the symbol times 16 plus its bits."""


class _DamagedError(Exception):
    """The decoder will not accept this stream."""


def check_webp(data: bytes, limits: ImageLimits) -> None:
    """Raise a `Problem` for a file with too many pixels, chunks, prefix codes or, where animations are refused, frames."""
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        if limits.refuse_several_frames and data[20] & 2:
            raise several_frames()
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    limits.check_size(width, height)
    check_webp_structure(data, limits)


def check_webp_structure(data: bytes, limits: ImageLimits) -> int:
    """Raise a `Problem` for a file with too many chunks or prefix codes.

    Returns:
        The most groups of prefix codes in one stream of the first picture; 0 where none is lossless, or the file is damaged.
    """
    max_pixels = max(MIN_SUB_IMAGE_PIXELS, limits.max_pixels // MIN_BLOCK_PIXELS)
    most = 0
    for index, (position, width, height) in enumerate(_lossless_streams(data)):
        if index == MAX_WEBP_STREAMS:
            raise too_complex("too many lossless parts")
        try:
            groups = _Stream(data, position, max_pixels).count_groups(width, height)
        except _DamagedError:
            continue
        if groups > MAX_WEBP_GROUPS:
            raise too_complex(f"more than {MAX_WEBP_GROUPS} groups of prefix codes")
        most = max(most, groups)
    return most


def _lossless_streams(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Offset, width and height of the streams that may be decoded for the first picture."""
    end = min(len(data), 8 + _number(data, 4, 4))
    extended = data[12:16] == b"VP8X"
    animated = extended and _number(data, 20, 1) & _ANIMATED
    position, alphas, found = 12, list[int](), False
    for _ in range(MAX_WEBP_CHUNKS):
        kind, size, body = data[position : position + 4], _number(data, position + 4, 4), position + 8
        if body > end:
            return
        if kind == b"ALPH" and not found and _number(data, body, 1) & 3 == 1:
            alphas.append(body + 1)
        elif kind in (b"VP8 ", b"VP8L"):
            if not found and kind == b"VP8L":
                head = _number(data, body + 1, 4)
                if data[body : body + 1] == _SIGNATURE and head >> 29 == 0:
                    yield body + 5, 1 + (head & 0x3FFF), 1 + (head >> 14 & 0x3FFF)
            elif not found:
                width, height = (_number(data, body + at, 2) & 0x3FFF for at in (6, 8))
                yield from ((alpha, width, height) for alpha in alphas)
            if not extended:
                return
            # Without the animation flag, the decoder skips its frames, and the picture comes after them.
            alphas, found = [], bool(animated)
        # The decoder takes the chunks within a frame as if they came after its header, whatever size the header gives.
        position = body + (_FRAME_HEADER_BYTES if kind == b"ANMF" else size + (size & 1))
    raise too_complex(f"more than {MAX_WEBP_CHUNKS} chunks")


def _number(data: bytes, at: int, n_bytes: int) -> int:
    return int.from_bytes(data[at : at + n_bytes], "little")


class _Stream:
    """The bits of a lossless stream. Beyond its end it gives zeros, which is noticed later."""

    def __init__(self, data: bytes, position: int, max_sub_image_pixels: int) -> None:
        self._data = data
        self._at = 8 * position
        self._max_pixels = max_sub_image_pixels

    def count_groups(self, width: int, height: int) -> int:
        """The number of groups of prefix codes, for a picture of this size in pixels."""
        seen: set[int] = set()
        while self._bits(1):
            kind = self._bits(2)
            if kind in seen:
                raise _DamagedError
            seen.add(kind)
            if kind in (_PREDICTOR, _COLOUR):
                self._blocks(width, height)
            elif kind == _COLOUR_INDEXING:
                n_colours = 1 + self._bits(8)
                self._sub_image(n_colours, 1)
                width = _parts(width, 0 if n_colours > 16 else 1 if n_colours > 4 else 2 if n_colours > 2 else 3)
        self._cache_bits()
        groups = 1
        if self._bits(1):  # red and green of each block together are the number of its group
            groups += max((pixel >> 8 & 0xFFFF for pixel in self._blocks(width, height)), default=0)
        self._check_end()
        return groups

    def _blocks(self, width: int, height: int) -> list[int]:
        log_side = 2 + self._bits(3)
        return self._sub_image(_parts(width, log_side), _parts(height, log_side))

    def _cache_bits(self) -> int:
        """Bits of the colour cache's index; 0: there is no cache."""
        if not self._bits(1):
            return 0
        cache_bits = self._bits(4)
        if not 1 <= cache_bits <= _MAX_CACHE_BITS:
            raise _DamagedError
        return cache_bits

    def _sub_image(self, width: int, height: int) -> list[int]:
        """The pixels of a small picture before the main one: blue in the lowest bits, then green, red and alpha."""
        n_pixels = width * height
        if n_pixels > self._max_pixels:
            raise too_complex(f"more than {self._max_pixels} blocks")
        cache_bits = self._cache_bits()
        cache, n_cached = [0] * (1 << cache_bits), 0
        sizes = (_N_LITERALS + _N_LENGTHS + (cache_bits and 1 << cache_bits), *[_N_LITERALS] * 3, _N_DISTANCES)
        greens, reds, blues, alphas, distances = [self._prefix_code(size) for size in sizes]
        green_mask, red_mask, blue_mask, alpha_mask = [len(table) - 1 for table in (greens, reds, blues, alphas)]
        data, pixels = self._data, list[int]()
        while len(pixels) < n_pixels:
            at = self._at
            window = int.from_bytes(data[at >> 3 : (at >> 3) + 9], "little") >> (at & 7)  # enough bits for four codes
            entry = greens[window & green_mask]
            used, symbol = entry & 15, entry >> 4
            if symbol < _N_LITERALS:
                red = reds[window >> used & red_mask]
                used += red & 15
                blue = blues[window >> used & blue_mask]
                used += blue & 15
                alpha = alphas[window >> used & alpha_mask]
                self._at = at + used + (alpha & 15)
                pixels.append(alpha >> 4 << 24 | red >> 4 << 16 | symbol << 8 | blue >> 4)
                continue
            self._at = at + used
            if symbol < _N_LITERALS + _N_LENGTHS:
                length = self._copy_number(symbol - _N_LITERALS)
                distance = _pixels_back(self._copy_number(self._symbol(distances)), width)
                start = len(pixels) - distance
                if start < 0 or length > n_pixels - len(pixels):
                    raise _DamagedError
                copied = pixels[start : start + length]
                pixels += (copied * -(-length // distance))[:length] if distance < length else copied
            else:
                for pixel in pixels[n_cached:]:
                    cache[(pixel * _HASH_FACTOR & 0xFFFFFFFF) >> (32 - cache_bits)] = pixel
                n_cached = len(pixels)
                pixels.append(cache[symbol - _N_LITERALS - _N_LENGTHS])
        self._check_end()
        return pixels

    def _prefix_code(self, n_symbols: int) -> _Table:
        lengths = [0] * n_symbols
        if self._bits(1):
            several, first_bits = self._bits(1), 8 if self._bits(1) else 1
            for n_bits in (first_bits, 8)[: 1 + several]:
                symbol = self._bits(n_bits)
                if symbol < n_symbols:  # the decoder ignores the rest
                    lengths[symbol] = 1
        else:
            self._read_lengths(lengths)
        self._check_end()
        return _table_of(lengths)

    def _read_lengths(self, lengths: list[int]) -> None:
        of_lengths = [0] * len(_ORDER_OF_LENGTHS)
        n_lengths = 4 + self._bits(4)
        if n_lengths > len(_ORDER_OF_LENGTHS):
            raise _DamagedError
        for symbol in _ORDER_OF_LENGTHS[:n_lengths]:
            of_lengths[symbol] = self._bits(3)
        table = _table_of(of_lengths)
        n_codes = 2 + self._bits(2 + 2 * self._bits(3)) if self._bits(1) else len(lengths)
        if n_codes > len(lengths):
            raise _DamagedError
        position, before = 0, 8
        while position < len(lengths) and n_codes:
            n_codes -= 1
            symbol = self._symbol(table)
            if symbol <= _MAX_CODE_BITS:
                lengths[position] = symbol
                position, before = position + 1, symbol or before
                continue
            n_bits, least = _REPEATS[symbol]
            repeats = least + self._bits(n_bits)
            if position + repeats > len(lengths):
                raise _DamagedError
            lengths[position : position + repeats] = [before if symbol == 16 else 0] * repeats
            position += repeats

    def _copy_number(self, symbol: int) -> int:
        """A length or a distance, from the prefix that was read and the bits after it."""
        if symbol < 4:
            return symbol + 1
        n_bits = symbol - 2 >> 1
        return (2 + (symbol & 1) << n_bits) + self._bits(n_bits) + 1

    def _symbol(self, table: _Table) -> int:
        at = self._at
        entry = table[int.from_bytes(self._data[at >> 3 : (at >> 3) + 3], "little") >> (at & 7) & len(table) - 1]
        self._at = at + (entry & 15)
        return entry >> 4

    def _bits(self, n_bits: int) -> int:
        """The next `n_bits` bits, at most 24, as a number."""
        at = self._at
        self._at = at + n_bits
        return int.from_bytes(self._data[at >> 3 : (at >> 3) + 4], "little") >> (at & 7) & (1 << n_bits) - 1

    def _check_end(self) -> None:
        if self._at > 8 * len(self._data):
            raise _DamagedError


def _parts(pixels: int, log_side: int) -> int:
    return -(-pixels >> log_side)


def _pixels_back(number: int, width: int) -> int:
    if number > len(_NEAR):
        return number - len(_NEAR)
    x, y = _NEAR[number - 1]
    return max(1, x + y * width)


def _table_of(lengths: list[int]) -> _Table:
    """The prefix code of these lengths, which must be complete; a code of a single symbol takes no bits."""
    used = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if len(used) == 1:
        return [used[0][1] << 4]
    if sum(1 << _MAX_CODE_BITS - length for length, _ in used) != 1 << _MAX_CODE_BITS:
        raise _DamagedError
    longest = used[-1][0]
    table, place = [0] * (1 << longest), 0
    for length, symbol in used:
        start = int(f"{place:0{longest}b}"[::-1], 2)
        table[start :: 1 << length] = [symbol << 4 | length] * (1 << longest - length)
        place += 1 << longest - length
    return table
