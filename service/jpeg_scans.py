"""How many scans JPEG data have, alone or within a TIFF file."""

from __future__ import annotations

from typing import Final

from service.image_limits import too_complex

JPEG_START_OF_SCAN: Final = b"\xff\xda"
MAX_JPEG_SCANS: Final = 50
"""Encoders write about ten; each takes its time for the whole image again."""


def check_scans(data: bytes, n_pictures: int = 1) -> None:
    """Raise a `Problem` for too many, of pictures that together make the image."""
    if data.count(JPEG_START_OF_SCAN) > MAX_JPEG_SCANS * n_pictures:
        raise too_complex(f"more than {MAX_JPEG_SCANS} scans")
