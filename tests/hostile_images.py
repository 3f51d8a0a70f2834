"""Image files made to hurt, and odd ones that are meant well: bombs are small where they can be, and made when asked for."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from service import errors
from service.errors import Kind
from service.images.jpeg import MAX_FULL_SCANS, MAX_JPEG_SCANS, MAX_JPEG_SEGMENTS
from service.images.png import MAX_PNG_CHUNKS
from service.images.tags import MAX_EXIF_BYTES
from service.images.tiff import MAX_TIFF_VALUES
from service.images.webp import MAX_WEBP_CHUNKS, MAX_WEBP_GROUPS
from tests.images import encode, gradient

MEBI = 2**20
FULL_SIDE = 2048
"""Of a square image at the limit of pixels."""
HUGE_SIDE = 13_000
"""169 megapixels."""

File = Callable[[], bytes]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *before_pixels: bytes, color: int = 0, depth: int = 8) -> bytes:
    """A black PNG file of any size, compressed row by row."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    row = bytes(1 + width * depth * {0: 1, 2: 3, 4: 2, 6: 4}[color] // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [chunk(b"IHDR", header), *before_pixels, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_with(segments: bytes, image: Image.Image | None = None, **options: Any) -> bytes:
    """A JPEG file with more before its own segments."""
    data = encode(image or gradient(), "JPEG", **options)
    return data[:2] + segments + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


def tiff(tags: list[tuple[int, int, int, int]], body: bytes, next_page: int = 0) -> bytes:
    """A little-endian TIFF file: `body` at offset 8, then the tags (number, type, count, value or offset)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<I", 8 + len(body)) + body
    return head + struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_page)


def gray_tiff(width: int, height: int, body: bytes, *more: tuple[int, int, int, int], compression: int = 1) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    if not more:
        more = ((273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, len(body)))
    return tiff([*tags, *more], body)


def tiff_of_strips(rows: int) -> bytes:
    """A picture of one column, each pixel a strip of its own: Pillow makes a dozen objects of each."""
    return gray_tiff(1, rows, bytes(4 * rows), (273, 4, rows, 8), (278, 4, 1, 1), (279, 4, rows, 8))


def tiff_of_one_tile(side: int) -> bytes:
    """A picture of 16 x 16 pixels in a tile that is far larger."""
    packed = zlib.compress(bytes(side * side), 9)
    tile = ((322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8), (325, 4, 1, len(packed)))
    return gray_tiff(16, 16, packed, *tile, compression=8)


def tiff_of_shared_strips(n_strips: int, offsets_tag: int = 273, n_offsets: int | None = None, sizes_type: int = 4) -> bytes:
    """Strips of one pixel that are all unpacked from the same bytes, which say the pixel in 2,000 of them."""
    packed = b"\x80" * 2000 + b"\0\x07"  # run lengths of nothing, then one of one
    n_offsets = n_strips if n_offsets is None else n_offsets
    letter = {3: "H", 4: "I", 16: "Q"}[sizes_type]
    offsets, sizes = struct.pack(f"<{n_offsets}I", *[8] * n_offsets), struct.pack(f"<{n_strips}{letter}", *[2002] * n_strips)
    places = (
        (offsets_tag, 4, n_offsets, 8 + len(packed)),
        (278, 4, 1, 1),
        (279, sizes_type, n_strips, 8 + len(packed + offsets)),
    )
    return gray_tiff(1, n_strips, packed + offsets + sizes, *places, compression=32773)


def tiff_of_wide_tiles(n_tiles: int) -> bytes:
    """A picture of one row in tiles that are far higher, each with bytes of its own."""
    side = 4096
    packed = zlib.compress(bytes(16 * side), 9)
    offsets = struct.pack(f"<{n_tiles}I", *[8 + index * len(packed) for index in range(n_tiles)])
    sizes, start = struct.pack(f"<{n_tiles}I", *[len(packed)] * n_tiles), 8 + n_tiles * len(packed)
    tiles = (322, 4, 1, 16), (323, 4, 1, side), (324, 4, n_tiles, start), (325, 4, n_tiles, start + len(offsets))
    return gray_tiff(16 * n_tiles, 1, packed * n_tiles + offsets + sizes, *tiles, compression=8)


def tiff_of_a_high_strip(height: int) -> bytes:
    """A picture of one row whose strip is a progressive JPEG picture of more."""
    strip = encode(Image.new("L", (FULL_SIDE, height)), "JPEG", progressive=True)
    return gray_tiff(FULL_SIDE, 1, strip, (273, 4, 1, 8), (278, 4, 1, 1), (279, 4, 1, len(strip)), compression=7)


def bmp(width: int, height: int, pixels: bytes, compression: int = 0, bits: int = 24) -> bytes:
    palette = bytes(1024) if bits == 8 else b""
    start = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    colors = 256 if palette else 0
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, colors, 0)
        + palette
        + pixels
    )


def webp_claiming(width: int, height: int) -> bytes:
    """A lossless WebP file whose header claims another size."""
    data = bytearray(encode(gradient(), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def lossless_head(width: int, height: int) -> bytes:
    return b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)


def lossless_of_groups(width: int, height: int, n_groups: int) -> bytes:
    """The lossless stream of a black picture, without its head, whose blocks of 4x4 pixels have codes of their own."""
    # Codes of all 19 code lengths, of which 0 and 8 take a bit each: the first 256 symbols are to have 8 bits.
    order = (17, 18, 0, 1, 2, 3, 4, 5, 16, *range(6, 16))
    byte_code = "0" + "1111" + "".join("100" if length in (0, 8) else "000" for length in order)
    one_symbol = "1000"
    n_blocks = -(-width // 4) * -(-height // 4)
    blocks = "".join(f"{index % n_groups & 255:08b}{index % n_groups >> 8:08b}" for index in range(n_blocks))
    codes = byte_code + "0" + "1" * 256 + "0" * 24 + byte_code + "0" + "1" * 256 + one_symbol * 3
    # No transform, no cache of colours, blocks of 2^2 pixels, and their picture has no cache either.
    bits = "00" + "1" + "000" + "0" + codes + blocks + one_symbol * 5 * n_groups + "0" * 64
    bits += "0" * (-len(bits) % 8)
    return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


def lossless_webp_of_groups(width: int, height: int, n_groups: int) -> bytes:
    return webp((b"VP8L", lossless_head(width, height) + lossless_of_groups(width, height, n_groups)))


def webp_header(width: int, height: int, flags: int) -> tuple[bytes, bytes]:
    return b"VP8X", struct.pack("<I", flags) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]


def lossy_webp_with_alpha(width: int, height: int, alpha: bytes) -> bytes:
    """A lossy picture with this lossless stream as its alpha."""
    lossy = encode(Image.new("RGB", (width, height)), "WEBP")[20:]
    return webp(webp_header(width, height, 0x10), (b"ALPH", b"\1" + alpha), (b"VP8 ", lossy))


def gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(gradient().quantize(16), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_of_a_large_frame(width: int, height: int) -> bytes:
    """A GIF file of 24x10 pixels whose only frame is larger, and is to be wiped before the next."""
    data = bytearray(encode(gradient().quantize(16), "GIF", transparency=0, disposal=2))
    frame = data.index(b",", data.index(b"!\xf9\x04"))
    data[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_of_blocks(n_blocks: int) -> bytes:
    """A GIF file with a comment in pieces of one byte."""
    data = encode(Image.new("L", (8, 8)), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + b"\x21\xfe" + b"\x01a" * n_blocks + b"\0" + data[start:]


def animation(format_: str, n_frames: int = 3, **options: Any) -> bytes:
    frames = [Image.new("RGB", (16, 8), (80 * shade % 256, 9, 9)) for shade in range(n_frames)]
    return encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)


def scan_bomb(n_scans: int, side: int = FULL_SIDE) -> bytes:
    """A progressive JPEG file that goes over its pixels again and again."""
    data = encode(Image.new("L", (side, side), 100), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * n_scans + data[-2:]


def arithmetic_jpeg(width: int, height: int, marker: int = 0xFFCA) -> bytes:
    """A JPEG file of 100 bytes, whose pixels are coded by an arithmetic coder (and are not there: its decoder goes on)."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    scan = b"\x01\x01\0\0\0\0" if marker == 0xFFCA else b"\x01\x01\0\0\x3f\0"
    segments = (segment(0xFFDB, b"\0" + b"\1" * 64), segment(marker, frame), segment(0xFFDA, scan))
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def tiff_of_jpeg(strip: bytes, side: int) -> bytes:
    return gray_tiff(side, side, strip, (273, 4, 1, 8), (278, 4, 1, side), (279, 4, 1, len(strip)), compression=7)


def loud_tiff(compression: int, packed: bytes, width: int = 64, height: int = 16_384) -> bytes:
    """A picture of one bit a pixel of which libtiff has something to say for every row."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 1), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff([*tags, (273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, len(packed))], packed)


def ifd_of_shared_bytes(n_tags: int, n_bytes: int) -> bytes:
    """The tags of EXIF, each of which has the same bytes as its value: parsed, each has a copy of its own."""
    tags = b"".join(struct.pack("<HHII", 1000 + index, 7, n_bytes, 8) for index in range(n_tags))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", n_tags) + tags).ljust(8 + n_bytes, b"\0")


def exif_as_text(exif: bytes) -> bytes:
    """A PNG file with its EXIF as packed hexadecimal digits, as some programs write it."""
    digits = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n"
    return png(24, 10, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits.encode(), 9)))


def tiff_of_shared_values(n_tags: int, n_bytes: int) -> bytes:
    body = bytes(max(64, n_bytes))
    return gray_tiff(8, 8, body, (273, 4, 1, 8), *((40_000 + index, 7, n_bytes, 8) for index in range(n_tags)))


def tiff_of_shared_values_within(n_tags: int, n_bytes: int) -> bytes:
    """The same in the directory of EXIF, to which one tag of the first points."""
    inner = struct.pack("<H", n_tags) + b"".join(struct.pack("<HHII", 1000 + i, 7, n_bytes, 8) for i in range(n_tags))
    body = bytes(max(64, n_bytes))
    return gray_tiff(8, 8, body + inner, (273, 4, 1, 8), (34_665, 4, 1, 8 + len(body)))


def tiff_of_exif_within_itself(n_pointers: int = 300) -> bytes:
    """The directory of EXIF points at itself again and again."""
    start = 8 + 64
    inner = struct.pack("<H", n_pointers) + struct.pack("<HHII", 34_665, 4, 1, start) * n_pointers
    return gray_tiff(8, 8, bytes(64) + inner, (273, 4, 1, 8), (34_665, 4, 1, start))


def resources(n_resources: int) -> bytes:
    """Segments as an image editor writes them, with resources that are empty."""
    return segment(0xFFED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5000) * (n_resources // 5000)


def ycck_jpeg() -> bytes:
    data = encode(gradient().convert("CMYK"), "JPEG")
    adobe = data.index(b"Adobe")
    return data[: adobe + 11] + b"\x02" + data[adobe + 12 :]


@functools.cache
def packed_zeros(n_bytes: int) -> bytes:
    """So many, as zlib packs them; kept, for to pack a hundred megabytes takes longer than to refuse them."""
    return zlib.compress(bytes(n_bytes))


def packed_text(kind: bytes, n_texts: int, n_bytes: int) -> list[bytes]:
    between = b"\0\0" if kind == b"zTXt" else b"\0\1\0\0\0"
    packed = packed_zeros(n_bytes)
    return [chunk(kind, b"k%d" % index + between + packed) for index in range(n_texts)]


def exif_of(n_bytes: int) -> bytes:
    """EXIF with as many tags as it can hold, each of which points at all of it."""
    n_tags = min(n_bytes // 12 - 2, 65_000)
    tags = b"".join(struct.pack(">HHII", 40_000 + index % 20_000, 7, n_bytes - 20, 8) for index in range(n_tags))
    return (b"MM\0*\0\0\0\x08" + struct.pack(">H", n_tags) + tags).ljust(n_bytes, b"\0")


def _transparent() -> Image.Image:
    return Image.merge("RGBA", [*gradient().split(), Image.linear_gradient("L").resize((24, 10))])


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


READ: dict[str, File] = {
    "cmyk.jpg": lambda: encode(gradient().convert("CMYK"), "JPEG"),
    "ycck.jpg": ycck_jpeg,
    "gray.jpg": lambda: encode(gradient().convert("L"), "JPEG"),
    "progressive.jpg": lambda: encode(gradient(), "JPEG", progressive=True),
    "16-bit.png": lambda: encode(Image.fromarray(np.full((10, 24), 40_000, np.uint16)), "PNG"),
    "16-bit-rgba.png": lambda: png(24, 10, color=6, depth=16),
    "int32.tiff": lambda: encode(Image.new("I", (24, 10), 7), "TIFF"),
    "float32.tiff": lambda: encode(Image.linear_gradient("L").convert("F"), "TIFF"),
    "1-bit.png": lambda: encode(gradient().convert("1"), "PNG"),
    "1-bit.tiff": lambda: encode(gradient().convert("1"), "TIFF", compression="group4"),
    "palette.png": lambda: encode(gradient().quantize(16), "PNG", transparency=0),
    "palette.gif": lambda: encode(gradient().quantize(16), "GIF", transparency=0),
    "palette.bmp": lambda: encode(gradient().quantize(16), "BMP"),
    "run-lengths.bmp": lambda: bmp(4, 2, b"\x04\x05\0\0\x04\x06\0\x01", compression=1, bits=8),
    "la.png": lambda: encode(_transparent().convert("LA"), "PNG"),
    "rgba.webp": lambda: encode(_transparent(), "WEBP", lossless=True),
    "animated.gif": lambda: animation("GIF"),
    "animated.webp": lambda: animation("WEBP"),
    "animated.png": lambda: animation("PNG"),
    "jpeg-strips.tiff": lambda: encode(Image.new("RGB", (FULL_SIDE, FULL_SIDE)), "TIFF", compression="jpeg"),
    "pages.tiff": lambda: animation("TIFF"),
    "many-frames.gif": lambda: animation("GIF", 2000),
    "broken-icc.png": lambda: encode(gradient(), "PNG", icc_profile=b"junk"),
    "huge-icc.png": lambda: encode(gradient(), "PNG", icc_profile=bytes(MEBI)),
    "huge-icc.jpg": lambda: jpeg_with(
        b"".join(segment(0xFFE2, b"ICC_PROFILE\0" + bytes([i + 1, 200]) + bytes(65_000)) for i in range(200))
    ),
    "marker-in-icc.jpg": lambda: encode(gradient(), "JPEG", icc_profile=b"\xff\xda\xff\xca\0\x0b\x08" * 400),
    "marker-in-exif.jpg": lambda: jpeg_with(segment(0xFFE1, b"Exif\0\0" + b"\xff\xda" * 400)),
    "marker-in-comment.jpg": lambda: jpeg_with(segment(0xFFFE, b"\xff\xda\xff\xc9" * 400)),
    "film-behind.jpg": lambda: encode(gradient(), "JPEG") + b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xca" * 10_000,
    "restarts.jpg": lambda: encode(gradient(640, 480), "JPEG", restart_marker_blocks=1),
    "many-scans.jpg": lambda: scan_bomb(MAX_JPEG_SCANS - 10, 256),
    "cmyk-progressive.jpg": lambda: encode(Image.new("CMYK", (FULL_SIDE, FULL_SIDE)), "JPEG", progressive=True),
    "marker-in-tag.tiff": lambda: encode(gradient(32, 32), "TIFF", compression="jpeg", icc_profile=b"\xff\xda\xff\xc9" * 400),
    "exif-within-itself.tiff": tiff_of_exif_within_itself,
    "exif-as-text.png": lambda: exif_as_text(_exif(orientation=6)),
    "broken-exif.jpg": lambda: encode(gradient(), "JPEG", exif=b"Exif\0\0garbage"),
    "huge-exif.png": lambda: png(24, 10, chunk(b"eXIf", exif_of(8 * MEBI))),
    "huge-exif.webp": lambda: encode(gradient(), "WEBP", exif=exif_of(8 * MEBI)),
    "comment.png": lambda: png(24, 10, *packed_text(b"zTXt", 3, MEBI - 100)),
    "1x1.png": lambda: png(1, 1),
    "1x5000.png": lambda: png(1, 5000),
    "5000x1.png": lambda: png(5000, 1),
    "5000x1.jpg": lambda: encode(Image.new("RGB", (5000, 1)), "JPEG"),
    "1x5000.webp": lambda: encode(Image.new("RGB", (1, 5000)), "WEBP"),
}
"""Odd files that are read."""

REFUSED: dict[str, tuple[File, Kind]] = {
    "bomb.png": (lambda: png(HUGE_SIDE, HUGE_SIDE, depth=1), errors.IMAGE_TOO_LARGE),
    "bomb.gif": (lambda: gif_claiming(HUGE_SIDE, HUGE_SIDE), errors.IMAGE_TOO_LARGE),
    "frame-bomb.gif": (lambda: gif_of_a_large_frame(65_535, 65_535), errors.IMAGE_TOO_LARGE),
    "large-frame.gif": (lambda: gif_of_a_large_frame(2**11, 2**11 + 1), errors.IMAGE_TOO_LARGE),
    "bomb.webp": (lambda: webp_claiming(HUGE_SIDE, HUGE_SIDE), errors.IMAGE_TOO_LARGE),
    "bomb.bmp": (lambda: bmp(2**31 - 1, 2**31 - 1, bytes(300)), errors.IMAGE_TOO_LARGE),
    "bomb.tiff": (lambda: gray_tiff(2**31, 2**31, bytes(300)), errors.IMAGE_TOO_LARGE),
    "long.png": (lambda: png(20_000, 1), errors.IMAGE_TOO_LARGE),
    "negative.bmp": (lambda: bmp(-10, -10, bytes(300)), errors.IMAGE_TOO_LARGE),
    "large-tile.tiff": (lambda: tiff_of_one_tile(4 * FULL_SIDE), errors.IMAGE_TOO_LARGE),
    "large-file.png": (lambda: png(24, 10) + bytes(16 * MEBI), errors.IMAGE_FILE_TOO_LARGE),
    "scans.jpg": (lambda: scan_bomb(MAX_JPEG_SCANS), errors.IMAGE_TOO_COMPLEX),
    "scans.tiff": (lambda: gray_tiff(8, 8, b"\xff\xd8" + b"\xff\xda\0\2" * 100, compression=7), errors.IMAGE_TOO_COMPLEX),
    "full-scans.jpg": (lambda: scan_bomb(MAX_FULL_SCANS), errors.IMAGE_TOO_COMPLEX),
    "full-scans.tiff": (lambda: tiff_of_jpeg(scan_bomb(MAX_FULL_SCANS), FULL_SIDE), errors.IMAGE_TOO_COMPLEX),
    "hidden-scans.jpg": (
        lambda: encode(gradient(), "JPEG")[:-2] + segment(0xFFFE, b"\xff\xd9") + scan_bomb(60, 64)[-600:],
        errors.IMAGE_TOO_COMPLEX,
    ),
    "arithmetic.jpg": (lambda: arithmetic_jpeg(FULL_SIDE, FULL_SIDE), errors.UNSUPPORTED_IMAGE_FORMAT),
    "arithmetic-sequential.jpg": (lambda: arithmetic_jpeg(24, 10, 0xFFC9), errors.UNSUPPORTED_IMAGE_FORMAT),
    "arithmetic-differential.jpg": (lambda: arithmetic_jpeg(24, 10, 0xFFCE), errors.UNSUPPORTED_IMAGE_FORMAT),
    "arithmetic.tiff": (lambda: tiff_of_jpeg(arithmetic_jpeg(64, 64), 64), errors.UNSUPPORTED_IMAGE_FORMAT),
    "bomb.jpg": (lambda: arithmetic_jpeg(HUGE_SIDE, HUGE_SIDE, 0xFFC0), errors.IMAGE_TOO_LARGE),
    "resources.jpg": (lambda: jpeg_with(resources(1_000_000)), errors.IMAGE_TOO_COMPLEX),
    "exif-tags.jpg": (lambda: jpeg_with(segment(0xFFE1, b"Exif\0\0" + exif_of(65_000))), errors.IMAGE_TOO_COMPLEX),
    "shared-exif.jpg": (
        lambda: jpeg_with(segment(0xFFE1, b"Exif\0\0" + ifd_of_shared_bytes(400, 60_000))),
        errors.IMAGE_TOO_COMPLEX,
    ),
    "shared-tags.tiff": (lambda: tiff_of_shared_values(500, MEBI), errors.IMAGE_TOO_COMPLEX),
    "shared-tags-within.tiff": (lambda: tiff_of_shared_values_within(500, MEBI), errors.IMAGE_TOO_COMPLEX),
    "segments.jpg": (lambda: jpeg_with(segment(0xFFFE, b"") * MAX_JPEG_SEGMENTS), errors.IMAGE_TOO_COMPLEX),
    "exif-in-pieces.jpg": (
        lambda: jpeg_with(segment(0xFFE1, b"Exif\0\0" + bytes(60_000)) * (1 + MAX_EXIF_BYTES // 60_000)),
        errors.IMAGE_TOO_COMPLEX,
    ),
    "padding.jpg": (lambda: jpeg_with(b"\xff" * 5000), errors.IMAGE_TOO_COMPLEX),
    "junk-between.jpg": (lambda: jpeg_with(segment(0xFFFE, b"") + bytes(5000)), errors.IMAGE_TOO_COMPLEX),
    "chunks.png": (lambda: png(24, 10, chunk(b"tIME", b"") * MAX_PNG_CHUNKS), errors.IMAGE_TOO_COMPLEX),
    "empty-pixels.png": (lambda: png(24, 10, chunk(b"IDAT", b"") * MAX_PNG_CHUNKS), errors.IMAGE_TOO_COMPLEX),
    "groups.webp": (lambda: lossless_webp_of_groups(1024, 1024, 2**16), errors.IMAGE_TOO_COMPLEX),
    "alpha-groups.webp": (
        lambda: lossy_webp_with_alpha(512, 512, lossless_of_groups(512, 512, 2**14)),
        errors.IMAGE_TOO_COMPLEX,
    ),
    "chunks.webp": (
        lambda: webp(webp_header(24, 10, 0), *[(b"ABCD", b"")] * MAX_WEBP_CHUNKS, (b"VP8 ", encode(gradient(), "WEBP")[20:])),
        errors.IMAGE_TOO_COMPLEX,
    ),
    "blocks.gif": (lambda: gif_of_blocks(20_000), errors.IMAGE_TOO_COMPLEX),
    "run-lengths.bmp": (lambda: bmp(1024, 1024, b"\x01\x05" * 1000, compression=1, bits=8), errors.IMAGE_TOO_COMPLEX),
    "strips.tiff": (lambda: tiff_of_strips(MAX_TIFF_VALUES + 1), errors.IMAGE_TOO_COMPLEX),
    "shared-strips.tiff": (lambda: tiff_of_shared_strips(16_384), errors.IMAGE_TOO_COMPLEX),
    "wide-tiles.tiff": (lambda: tiff_of_wide_tiles(256), errors.IMAGE_TOO_COMPLEX),
    "high-strip.tiff": (lambda: tiff_of_a_high_strip(2 * FULL_SIDE), errors.IMAGE_TOO_LARGE),
    "twice.tiff": (lambda: gray_tiff(1, 1, bytes(8), (273, 4, 1, 8), (273, 4, 1, 9), (279, 4, 1, 1)), errors.IMAGE_TOO_COMPLEX),
    "tags.tiff": (lambda: tiff([(40_000 + index, 7, 1000, 8) for index in range(600)], bytes(1000)), errors.IMAGE_TOO_COMPLEX),
    "zstd.tiff": (lambda: gray_tiff(8, 8, bytes(64), compression=50_000), errors.UNSUPPORTED_IMAGE_FORMAT),
    "big.tiff": (lambda: b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + bytes(100), errors.UNSUPPORTED_IMAGE_FORMAT),
    "word.zip": (lambda: b"PK\x03\x04" + bytes(100), errors.UNSUPPORTED_IMAGE_FORMAT),
    "text-bomb.png": (lambda: png(24, 10, *packed_text(b"iTXt", 200, MEBI - 100)), errors.UNREADABLE_IMAGE),
    "one-text-bomb.png": (lambda: png(24, 10, *packed_text(b"zTXt", 1, 100 * MEBI)), errors.UNREADABLE_IMAGE),
    "icc-bomb.png": (
        lambda: png(24, 10, chunk(b"iCCP", b"k\0\0" + packed_zeros(100 * MEBI))),
        errors.UNREADABLE_IMAGE,
    ),
    "zero.png": (lambda: png(0, 10), errors.UNREADABLE_IMAGE),
    "zero.gif": (lambda: gif_claiming(0, 0)[:10] + bytes(30), errors.UNREADABLE_IMAGE),
    "zero.bmp": (lambda: bmp(0, 0, b""), errors.UNREADABLE_IMAGE),
    "zero.tiff": (lambda: gray_tiff(0, 0, bytes(8)), errors.UNREADABLE_IMAGE),
    "truncated.jpg": (lambda: encode(gradient(96, 96), "JPEG")[:800], errors.UNREADABLE_IMAGE),
    "header-only.png": (lambda: png(24, 10)[:33], errors.UNREADABLE_IMAGE),
    "noise": (lambda: np.random.default_rng(0).bytes(MEBI), errors.UNREADABLE_IMAGE),
}
"""Files that are refused, and how."""

LARGEST: dict[str, File] = {
    "rgb.png": lambda: png(FULL_SIDE, FULL_SIDE, color=2),
    "rgba.png": lambda: encode(Image.new("RGBA", (FULL_SIDE, FULL_SIDE), (250, 250, 250, 100)), "PNG"),
    "16-bit.png": lambda: png(FULL_SIDE, FULL_SIDE, depth=16),
    "palette.gif": lambda: encode(Image.new("P", (FULL_SIDE, FULL_SIDE)), "GIF", transparency=0),
    "cmyk.jpg": lambda: encode(Image.new("CMYK", (FULL_SIDE, FULL_SIDE)), "JPEG", subsampling=0),
    "scans.jpg": lambda: scan_bomb(MAX_FULL_SCANS - 10),
    "icc.jpg": READ["huge-icc.jpg"],
    "rgb.webp": lambda: encode(Image.new("RGB", (FULL_SIDE, FULL_SIDE)), "WEBP"),
    "rgba.webp": lambda: encode(Image.new("RGBA", (FULL_SIDE, FULL_SIDE), (250, 250, 250, 100)), "WEBP", lossless=True),
    "noise.webp": lambda: encode(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (FULL_SIDE, FULL_SIDE, 3), np.uint8)),
        "WEBP",
        lossless=True,
        method=0,
    ),
    "groups.webp": lambda: lossless_webp_of_groups(FULL_SIDE // 4, FULL_SIDE // 4, MAX_WEBP_GROUPS),
    "rgb.bmp": lambda: bmp(FULL_SIDE, FULL_SIDE, bytes(3 * FULL_SIDE**2)),
    "run-lengths.bmp": lambda: bmp(512, 512, b"\x01\x05" * 512 * 512, compression=1, bits=8),
    "rgba.tiff": lambda: encode(
        Image.new("RGBA", (FULL_SIDE, FULL_SIDE), (9, 9, 9, 9)), "TIFF", compression="tiff_adobe_deflate"
    ),
    "float32.tiff": lambda: encode(Image.new("F", (FULL_SIDE, FULL_SIDE), 1), "TIFF", compression="tiff_adobe_deflate"),
    "tile.tiff": lambda: tiff_of_one_tile(FULL_SIDE),
    "strips.tiff": lambda: tiff_of_strips(16_384),
}
"""Per format, the accepted files that take most memory or time."""
