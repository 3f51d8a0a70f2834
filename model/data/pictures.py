"""Image files to Pillow pictures, with one error for everything that can be wrong with a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import Image

PLAIN_FORMATS: Final = frozenset({"JPEG", "PNG", "WEBP", "BMP", "GIF"})
PLAIN_MODES: Final = frozenset({"RGB", "L", "1", "P", "CMYK"})
ORIENTATION_TAG: Final = 0x0112


class BrokenImageError(ValueError):
    """The bytes are no picture that can be decoded."""


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BrokenImageError: There is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BrokenImageError("there is no such file") from None
    except OSError as error:
        raise BrokenImageError(f"cannot be read ({error.strerror})") from None


def decode_image(encoded: bytes) -> Image.Image:
    """The picture in an image file, loaded, as it is stored.

    Raises:
        BrokenImageError: The bytes are no image, or a damaged one.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on broken files in every way there is
        raise BrokenImageError("not a readable image" if encoded else "an empty file") from error
    return image


def encode_png(image: Image.Image) -> bytes:
    """The picture as a PNG file, quickly rather than small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def as_stored(image: Image.Image) -> Image.Image:
    """RGB as the reference implementation makes it of data sets: orientation and transparency are ignored."""
    return image if image.mode == "RGB" else image.convert("RGB")


def is_plain(image: Image.Image) -> bool:
    """Whether whoever decodes the file gets the same RGB: no orientation, no transparency, 8 bits, a format of the Web."""
    return (
        image.format in PLAIN_FORMATS
        and image.mode in PLAIN_MODES
        and not image.has_transparency_data
        and image.getexif().get(ORIENTATION_TAG, 1) == 1
    )


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """Turned counter-clockwise; the picture grows, its new corners are black (Pillow's defaults, as the reference has it)."""
    return image.rotate(degrees, expand=True) if degrees else image
