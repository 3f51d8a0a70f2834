"""The content types that announce an image, of a body or of a part of a form."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

IMAGE_TYPE_PREFIX: Final = "image/"
BINARY_TYPES: Final = (
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-octet-stream",
    "application/binary",
    "application/x-binary",
)
"""Types that mean "some bytes". The first is the registered one; object stores and older clients use the rest."""


@lru_cache(64)
def media_type_of(content_type: bytes) -> str:
    """The media type in the value of a `Content-Type` header, in lower case and without its parameters."""
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


def announces_image(media_type: str) -> bool:
    """Whether content of this type is taken for an image file of some format."""
    return media_type.startswith(IMAGE_TYPE_PREFIX) or media_type in BINARY_TYPES
