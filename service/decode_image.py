"""From the bytes of an image file to an upright RGB picture.

Only the formats of `FORMATS` are opened, only the first frame is read, and the size is checked from the header before any
pixel is decoded. Whatever goes wrong inside the decoder becomes a `Problem` of this one image.
"""

from __future__ import annotations

import binascii
import io
import struct
from typing import Final

import numpy as np
from PIL import Image

from service.errors import (
    IMAGE_TOO_LARGE,
    INVALID_BASE64,
    UNREADABLE_IMAGE,
    UNSUPPORTED_IMAGE_FORMAT,
    Problem,
)

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow's names of the formats that are read; a list of what is allowed, never of what is not."""

FOREIGN_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or another XML file"),
)
"""Offset, bytes and name of formats people send and this server does not read, to tell them which one it was."""

ORIENTATION_TAG: Final = 0x0112
TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

LIGHT: Final = 160
"""Mean brightness, of 255, from which letters on a transparent ground are laid on black."""

QUICK_BYTES: Final = 2**15
QUICK_PIXELS: Final = 2**15
QUICK_PARTS: Final = 24
"""Segments of a JPEG file or chunks of a PNG file before its pixels, at most."""
JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
JPEG_START_OF_SCAN: Final = b"\xff\xda"
JPEG_EXIF: Final = b"\xff\xe1"
QUICK_EXIF_BYTES: Final = 1024
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PNG_QUICK_CHUNKS: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"tIME", b"tEXt")
)
"""What is not among them may be unpacked to a thousand times its size, or be parsed at length."""

# The limit on pixels is a setting, checked on the header below; Pillow's own, global one would only add warnings.
Image.MAX_IMAGE_PIXELS = None
# Load the format plugins now, not in the first request.
Image.init()


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text: line breaks, URL-safe letters, missing padding and a `data:` prefix are accepted.

    Raises:
        Problem: the text is not base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass  # not plain base64, perhaps one of the other forms
    if text.startswith("data:"):
        text = text.partition(",")[2]
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(compact + "=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        raise Problem(INVALID_BASE64, "The content of this image is not valid base64.") from error


def may_be_quick(data: bytes) -> bool:
    """Whether this file can only take long to decode by its number of pixels: a small JPEG or PNG file without tricks.

    With `QUICK_PIXELS` as its limit, `decode_image` then takes a fraction of a millisecond.
    """
    if len(data) > QUICK_BYTES:
        return False
    try:
        if data.startswith(PNG_SIGNATURE):
            return _is_plain_png(data)
        return data.startswith(JPEG_SIGNATURE) and _is_plain_jpeg(data)
    except struct.error:  # truncated
        return False


def _is_plain_png(data: bytes) -> bool:
    position = len(PNG_SIGNATURE)
    for _ in range(QUICK_PARTS):
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            return True
        if kind not in PNG_QUICK_CHUNKS:
            return False
        position += 12 + struct.unpack_from(">I", data, position)[0]
    return False


def _is_plain_jpeg(data: bytes) -> bool:
    # A progressive file goes over its pixels many times, in as many scans.
    if data.count(JPEG_START_OF_SCAN) != 1:
        return False
    position = 2
    for _ in range(QUICK_PARTS):
        marker = data[position : position + 2]
        if marker == JPEG_START_OF_SCAN:
            return True
        size = struct.unpack_from(">H", data, position + 2)[0]
        if marker == JPEG_EXIF and size > QUICK_EXIF_BYTES:
            return False
        position += 2 + size
    return False


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the first frame of an image file: upright, RGB, 8 bits.

    Args:
        data: The whole file.
        max_pixels: Width times height, at most.

    Raises:
        Problem: the format is not supported, the image is too large, or it cannot be decoded.
    """
    if not data:
        raise Problem(UNREADABLE_IMAGE, "The image is empty: it has no bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, max_pixels)
            # In full: JPEG's own scaling (Pillow's draft mode) would decode a photo of 12 megapixels in 30 instead of 155 ms,
            # but 1 to 3 % of 1,500 crops of IIIT5k, enlarged to photos, then read differently.
            image.load()
            return to_rgb(_upright(image))
    except Problem:
        raise
    except Exception as error:
        # Decoders fail on broken files in every way there is (OSError, SyntaxError, ValueError, struct.error,
        # MemoryError, ...): each of them is the fault of this one image.
        raise _unreadable(data) from error


def _unreadable(data: bytes) -> Problem:
    supported = "JPEG, PNG, WebP, BMP, GIF and TIFF are"
    start = data.lstrip()[:16] if data[:1].isspace() else data[:16]
    for offset, signature, name in FOREIGN_SIGNATURES:
        if start[offset:].startswith(signature):
            return Problem(UNSUPPORTED_IMAGE_FORMAT, f"This looks like {name}, which is not supported; {supported}.")
    return Problem(UNREADABLE_IMAGE, f"The image is damaged, or not in a supported format; {supported}.")


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Problem(
            IMAGE_TOO_LARGE,
            f"The image is {width} x {height} pixels; it may have {max_pixels} at most (PARSEQ_MAX_IMAGE_PIXELS). "
            "Send a crop of the word.",
        )


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; broken EXIF means none. (Pillow itself turns TIFF when it loads the pixels.)"""
    try:
        transpose = TRANSPOSES.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:
        return image
    return image if transpose is None else image.transpose(transpose)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, 8 bits a channel.

    Transparent pixels are laid on paper: white, or black under light letters. (The colour stored under a transparent pixel is
    usually black, so that dropping the alpha channel would paint dark letters on dark.) Fully opaque pixels come out exactly
    as dropping the alpha channel leaves them, which is what the reference preprocessing does.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getbbox() is None:
            return rgba.convert("RGB")  # nothing is visible: the colours underneath are the better guess
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _paper(rgba)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _paper(rgba: Image.Image) -> tuple[int, int, int, int]:
    """Black for an image of which little is opaque and that is light (letters cut out), else white."""
    opacity = np.asarray(rgba.getchannel("A"), np.float32) / 255
    brightness = np.asarray(rgba.convert("L"), np.float32) * opacity
    covered = float(opacity.sum())
    light = brightness.sum() > LIGHT * covered
    return (0, 0, 0, 255) if light and covered < 0.5 * opacity.size else (255, 255, 255, 255)


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Scale more than 8 bits to 8 (Pillow would clip): 16 bits by their range, others from their darkest to brightest."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not numbers")
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(values.min()), float(values.max()))
    scaled = (values - low) * (255.0 / (high - low if high > low else 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
