"""Image files, broken in the ways that find bugs in decoders. Seed and number of a file give the same file again."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

from tests.hostile_images import READ, REFUSED
from tests.images import encode, gradient

MAX_SEED_BYTES = 2**15
"""Of a file to begin with: larger ones only make it slow."""
EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
EDITS = (1, 1, 1, 2, 2, 3, 8)
"""One edit leads a decoder further than many, after which little is left of a file."""


@cache
def seed_corpus() -> list[bytes]:
    """Small files of every format and kind, odd and hostile ones among them."""
    plain = [encode(gradient(), format_) for format_ in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]
    packed = [encode(gradient(40, 40), "TIFF", compression=name) for name in ("jpeg", "tiff_lzw", "packbits")]
    odd = [make() for make in READ.values()] + [make() for make, _ in REFUSED.values()]
    return [data for data in plain + packed + odd if 0 < len(data) <= MAX_SEED_BYTES]


class Mutator:
    """Makes broken files.

    Args:
        seed: Of all random choices.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._corpus = seed_corpus()

    def file(self, number: int) -> bytes:
        """The file of this number."""
        choice = random.Random(f"{self._seed}/{number}")
        data = bytearray(choice.choice(self._corpus))
        for _ in range(choice.choice(EDITS)):
            self._edit(choice, data)
        if data.startswith(b"\x89PNG") and choice.random() < 0.9:
            mend_checksums(data)
        return bytes(data)

    def _edit(self, choice: random.Random, data: bytearray) -> None:
        at = self._position(choice, data)
        match choice.randrange(7):
            case 0:
                data[at : at + 1] = bytes([choice.randrange(256)])
            case 1 if data:
                data[at % len(data)] ^= 1 << choice.randrange(8)
            case 2:
                layout = choice.choice(("<B", "<H", ">H", "<I", ">I"))
                value = choice.choice(EDGES) & (256 ** struct.calcsize(layout) - 1)
                data[at : at + struct.calcsize(layout)] = struct.pack(layout, value)
            case 3:
                del data[at : at + choice.choice((1, 2, 4, 12, 100))]
            case 4:
                piece = data[at : at + choice.choice((2, 12, 64, 500))]
                data[at:at] = piece * choice.randint(1, 4)
            case 5:
                other = choice.choice(self._corpus)
                start = choice.randrange(len(other))
                data[at : at + 64] = other[start : start + choice.randint(1, 200)]
            case _:
                if choice.random() < 0.2:
                    del data[at:]
                else:
                    data[at:at] = choice.randbytes(choice.randint(1, 8))

    @staticmethod
    def _position(choice: random.Random, data: bytearray) -> int:
        """Headers are where decoders can be led astray."""
        end = min(len(data), 80) if choice.random() < 0.6 else len(data)
        return choice.randint(0, end)


def mend_checksums(data: bytearray) -> None:
    """Make the checksums of a PNG file right, or nothing behind the first edit would be read."""
    position = 8
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        end = position + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
