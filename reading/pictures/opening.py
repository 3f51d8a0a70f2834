"""From an image file to the picture that is read: upright and RGB, as the service sees it."""

from __future__ import annotations

from PIL import Image, ImageOps

from artifact.rgb import to_rgb
from model.data.pictures import BrokenImageError, decode_image


def as_seen(image: Image.Image) -> Image.Image:
    """The picture as the service sees it: upright, RGB. (Data sets are read as they are stored.)

    Raises:
        BrokenImageError: It has pixels that are not numbers.
    """
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data: no orientation
        upright = image
    try:
        return to_rgb(upright)
    except ValueError as error:
        raise BrokenImageError(f"has {error}") from None


def open_picture(encoded: bytes) -> Image.Image:
    """The picture in an image file.

    Raises:
        BrokenImageError: The bytes are no image, or a damaged one.
    """
    return as_seen(decode_image(encoded))
