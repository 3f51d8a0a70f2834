"""What JPEG data cost a decoder, in a file of their own or within a TIFF file: their segments, scans and coding.

The markers are walked as the decoder walks them: over a segment by its length, through coded pixels to the next marker, and
no further than the end of the image. The two bytes of a marker mean nothing in a profile, in EXIF, in a comment, nor in what
follows the picture (a telephone's photograph may have a film behind it).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from service.errors import UNSUPPORTED_IMAGE_FORMAT, Problem
from service.images.limits import ImageLimits, too_complex
from service.images.tags import EXIF_HEAD, MAX_EXIF_BYTES, check_exif

JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
PLAIN_EXIF_BYTES: Final = 1024
MAX_JPEG_SCANS: Final = 50
"""Encoders write about ten; each takes time for the whole image."""
MAX_FULL_SCANS: Final = 20
"""Scans of the largest picture allowed; the usual encoder writes 10 for a picture in colour and 18 for CMYK."""
MAX_JPEG_SEGMENTS: Final = 1000
MAX_STRIP_SEGMENTS: Final = 16
"""Segments of a strip or tile of a TIFF file, on average. They usually have half as many, since their tables are in a tag."""
MAX_TIFF_SEGMENTS: Final = 2**16
"""Of all strips or tiles; an image of the most pixels that is allowed has at most 2,048 strips, and 256 tiles of usual size."""
MAX_JPEG_RESOURCES: Final = 1000
"""Resources of an image editor, each of which becomes a Python object; such a program writes some dozens."""
MAX_JPEG_FILL_BYTES: Final = 1024
"""Between the segments before the pixels; Pillow goes over them one by one."""

SEARCH_BYTES: Final = 2**16
_MARKER: Final = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_AFTER_PIXELS: Final = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
"""A marker that ends coded pixels: 0 after 255 is none, restart markers belong to them, and decoders may skip those below."""
_SOS, _APP1, _APP13 = 0xDA, 0xE1, 0xED
_START_OF_SCAN: Final = b"\xff\xda"
_EXIF: Final = b"\xff\xe1"
_RESOURCES: Final = b"Photoshop 3.0\0"
_RESOURCE: Final = b"8BIM"
_WITHOUT_LENGTH: Final = frozenset((0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers at the start of a frame, which tell its size and the way its pixels are coded."""
_ARITHMETIC_FRAMES: Final = frozenset((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))


class JpegChecks:
    """Goes over the JPEG pictures that together make one image.

    Args:
        limits: What the image may be.
        n_pictures: How many pictures there are, at most.
    """

    def __init__(self, limits: ImageLimits, n_pictures: int = 1) -> None:
        self._limits = limits
        self._max_segments = min(MAX_TIFF_SEGMENTS, MAX_JPEG_SEGMENTS + MAX_STRIP_SEGMENTS * max(0, n_pictures - 1))
        self._n_segments = 0
        self._scan_pixels_left = MAX_FULL_SCANS * limits.max_pixels

    def check(self, data: bytes, start: int, end: int) -> None:
        """Raise a `Problem` for the picture in these bytes if it costs too much; where it is damaged, the walk ends."""
        n_scans, n_pixels, n_resources, exif = 0, 0, 0, list[bytes]()
        for marker, body, size in self._segments(data, start, end):
            if marker in _FRAMES and size >= 6:
                n_pixels = self._pixels_of(data, marker, body)
            elif marker == _SOS:
                n_scans += 1
                self._check_scan(n_scans, n_pixels)
            elif marker == _APP1 and not n_scans and data.startswith(EXIF_HEAD, body):
                exif.append(data[body + (len(EXIF_HEAD) if exif else 0) : body + size])
                if sum(map(len, exif)) > MAX_EXIF_BYTES:
                    raise too_complex(f"more than {MAX_EXIF_BYTES} bytes of EXIF")
            elif marker == _APP13 and not n_scans and data.startswith(_RESOURCES, body):
                n_resources += data.count(_RESOURCE, body, body + size)
                if n_resources > MAX_JPEG_RESOURCES:
                    raise too_complex(f"more than {MAX_JPEG_RESOURCES} resources of an image editor")
        if exif:
            check_exif(b"".join(exif))

    def _pixels_of(self, data: bytes, marker: int, body: int) -> int:
        if marker in _ARITHMETIC_FRAMES:
            detail = "Arithmetic coding of JPEG files is not supported. Save it with Huffman coding, as is usual, or as PNG."
            raise Problem(UNSUPPORTED_IMAGE_FORMAT, detail)
        height, width = struct.unpack_from(">HH", data, body + 1)
        self._limits.check_size(width, height)
        return int(width * height)

    def _check_scan(self, n_scans: int, n_pixels: int) -> None:
        if n_scans > MAX_JPEG_SCANS:
            raise too_complex(f"more than {MAX_JPEG_SCANS} scans")
        self._scan_pixels_left -= n_pixels
        if self._scan_pixels_left < 0:
            raise too_complex(f"too many scans ({n_scans}) for so many pixels ({n_pixels})")

    def _segments(self, data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Marker, offset and size of each segment, up to the end of the image or to where a decoder would give up."""
        position, fill_bytes, in_pixels = start + 2, 0, False
        while position < end:
            near_end = min(end, position + MAX_JPEG_FILL_BYTES + 2)
            found = _find_after_pixels(data, position, end) if in_pixels else _MARKER.search(data, position, near_end)
            fill_bytes += 0 if in_pixels else (found.start() if found else end) - position
            if fill_bytes > MAX_JPEG_FILL_BYTES:
                raise too_complex("padding between its segments")
            if found is None:
                return
            self._n_segments += 1
            if self._n_segments > self._max_segments:
                raise too_complex(f"more than {self._max_segments} segments")
            marker, position = found[1][0], found.end()
            if marker in _WITHOUT_LENGTH:
                if in_pixels:  # the end of the image, or something that stops every decoder
                    return
                continue
            if position + 2 > end:
                return
            size = max(2, struct.unpack_from(">H", data, position)[0])
            yield marker, position + 2, min(size, end - position) - 2
            position += size
            in_pixels = in_pixels or marker == _SOS


def _find_after_pixels(data: bytes, position: int, end: int) -> re.Match[bytes] | None:
    """The next marker. Searched in steps, between which other threads may run: 16 MiB take up to 0.3 s."""
    while position < end:
        if found := _MARKER_AFTER_PIXELS.search(data, position, min(end, position + SEARCH_BYTES)):
            return found
        position += SEARCH_BYTES - 1  # a marker may lie across two steps
    return None


def check_jpeg(data: bytes, limits: ImageLimits) -> None:
    """Raise a `Problem` for a JPEG file with too many pixels, segments or scans, or with arithmetic coding."""
    JpegChecks(limits).check(data, 0, len(data))


def is_plain_jpeg(data: bytes, most_segments: int) -> bool:
    """Whether a JPEG file has one scan, so that its pixels are gone over once, and little before it."""
    if data.count(_START_OF_SCAN) != 1:
        return False
    position = 2
    for _ in range(most_segments):
        marker = data[position : position + 2]
        if marker == _START_OF_SCAN:
            return True
        n_bytes = int.from_bytes(data[position + 2 : position + 4])
        if position + 4 > len(data) or (marker == _EXIF and n_bytes > PLAIN_EXIF_BYTES):
            return False
        position += 2 + n_bytes
    return False
