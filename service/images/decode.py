"""From the bytes of an image file to an upright RGB picture.

Only the formats of the limits are opened, only the first frame is read, and size and structure are checked before any pixel is
decoded. Whatever goes wrong inside the decoder becomes a `Problem` of this one image.
"""

from __future__ import annotations

import binascii
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from PIL import Image, ImageFile, PngImagePlugin

from artifact.rgb import to_rgb
from service.config import DEFAULT_MAX_IMAGE_PIXELS
from service.errors import INVALID_BASE64, UNREADABLE_IMAGE, UNSUPPORTED_IMAGE_FORMAT, Problem
from service.images.jpeg import JPEG_SIGNATURE, is_plain_jpeg
from service.images.limits import ImageLimits, PixelAccount
from service.images.png import PNG_SIGNATURE, is_plain_png
from service.images.structure import check_structure, format_of
from service.images.tags import MAX_EXIF_BYTES, check_exif

FOREIGN_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or another XML file"),
)
"""Offset, bytes and name of formats that people send but this server does not read, to name them in the refusal."""

ORIENTATION_TAG: Final = 0x0112
RAW_EXIF: Final = "Raw profile type exif"
TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

QUICK_BYTES: Final = 2**15
QUICK_PIXELS: Final = 2**15
QUICK_PARTS: Final = 24
"""Segments of a JPEG file or chunks of a PNG file before its pixels, at most."""

MAX_URL_PREFIX: Final = 64
"""How many characters of a base64 text are searched for a `data:` prefix, blanks in front of it apart."""
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")

# The limit on pixels is a setting, checked on the header below. Pillow's own limit, for the whole process, is a second net: the
# frame of a GIF file may be far larger than its header says, and Pillow allots a picture of that size while it opens the file.
# It warns above the limit, and raises above twice as much.
Image.MAX_IMAGE_PIXELS = DEFAULT_MAX_IMAGE_PIXELS
# The missing part of a truncated file must not be filled in.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Texts in a PNG file are not needed, and a small file may hold many that unpack to 64 MiB, Pillow's own limit.
PngImagePlugin.MAX_TEXT_MEMORY = 2**22
# Pillow's warnings about odd files show paths of this machine and do not follow the log's format. Nothing is lost with them:
# the answer tells whoever sent the file.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
# Load the format plugins now, not in the first request.
Image.init()


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A picture sent as raw pixels instead of a file."""

    height: int
    width: int
    content: bytes
    """`height * width * 3` bytes, row by row, RGB."""

    def __len__(self) -> int:
        """Bytes."""
        return len(self.content)

    def picture(self, limits: ImageLimits) -> Image.Image:
        """The same as `decode_image` gives for files.

        Raises:
            Problem: It has no pixels, or more than the limits allow.
        """
        limits.check_size(self.width, self.height)
        if not self.content:
            raise Problem(UNREADABLE_IMAGE, "The image is empty: it has no pixels.")
        return Image.frombuffer("RGB", (self.width, self.height), self.content, "raw", "RGB", 0, 1)


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text: line breaks, URL-safe letters, missing padding and a `data:` prefix are accepted.

    Raises:
        Problem: The text is not base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass  # not plain base64, perhaps one of the other accepted forms
    if text[:MAX_URL_PREFIX].lstrip()[:5].lower() == "data:":
        text = text.partition(",")[2]
        if "%" in text:
            text = unquote(text)
    try:
        # As bytes: to split a text at its blanks may make millions of objects.
        compact = text.encode("ascii").translate(_URL_SAFE, b" \t\r\n\v\f").rstrip(b"=")
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:
        raise Problem(INVALID_BASE64, "The content of this image is not valid base64.") from error


def may_be_quick(data: bytes) -> bool:
    """Whether only the number of its pixels decides how long this file takes to decode: a small, plain JPEG or PNG file.

    With `QUICK_PIXELS` as its limit, `decode_image` then takes a fraction of a millisecond.
    """
    if len(data) > QUICK_BYTES:
        return False
    if data.startswith(PNG_SIGNATURE):
        return is_plain_png(data, QUICK_PARTS)
    return data.startswith(JPEG_SIGNATURE) and is_plain_jpeg(data, QUICK_PARTS)


def decode_image(data: bytes, limits: ImageLimits, account: PixelAccount | None = None) -> Image.Image:
    """Decode the first frame of an image file: upright, RGB, 8 bits.

    Args:
        data: The whole file.
        limits: What it may be.
        account: The pixels left to its request, if that has several images.

    Raises:
        Problem: The format is not supported, the image or its file exceeds a limit, or it cannot be decoded.
    """
    if not data:
        raise Problem(UNREADABLE_IMAGE, "The image is empty: it has no bytes.")
    limits.check_bytes(len(data))
    format_ = format_of(data)
    if format_ is None:
        raise _unreadable(data, limits)
    limits.check_format(format_)
    try:
        check_structure(data, format_, limits)
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limits.max_pixels)
        with Image.open(io.BytesIO(data), formats=(format_,)) as image:
            limits.check_size(*image.size)
            if account is not None:
                account.charge(*image.size)
            # In full: JPEG's own scaling (Pillow's draft mode) would decode a photo of 12 megapixels in 30 instead of 155 ms,
            # but 1 to 3 % of 1,500 crops of IIIT5k, enlarged to photos, then read differently.
            image.load()
            return to_rgb(_upright(image))
    except Problem:
        raise
    except Image.DecompressionBombError as error:
        raise limits.far_too_many_pixels() from error
    except Exception as error:
        # Decoders fail on broken files in every way there is (OSError, SyntaxError, ValueError, struct.error,
        # MemoryError, ...): each of them is the fault of this one image.
        raise _unreadable(data, limits) from error


def _unreadable(data: bytes, limits: ImageLimits) -> Problem:
    supported = limits.spoken_formats()
    start = data.lstrip()[:16] if data[:1].isspace() else data[:16]
    for offset, signature, name in FOREIGN_SIGNATURES:
        if start[offset:].startswith(signature):
            return Problem(UNSUPPORTED_IMAGE_FORMAT, f"This looks like {name}, which is not supported; {supported}.")
    return Problem(UNREADABLE_IMAGE, f"The image is damaged, or not in a supported format; {supported}.")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; broken EXIF means none. (Pillow itself turns TIFF when it loads the pixels.)"""
    try:
        exif = _exif_of(image)
        if len(exif) > MAX_EXIF_BYTES:  # the whole of it would be parsed for one number
            return image
        check_exif(exif)
        transpose = TRANSPOSES.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Problem:
        raise
    except Exception:
        return image
    return image if transpose is None else image.transpose(transpose)


def _exif_of(image: Image.Image) -> bytes:
    """As Pillow finds it: some programs write it into a PNG file as a text of hexadecimal digits, after three lines."""
    if "exif" not in image.info and RAW_EXIF in image.info:
        return bytes.fromhex("".join(image.info[RAW_EXIF].split("\n")[3:]))
    return bytes(image.info.get("exif", b""))
