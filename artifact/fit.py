"""From a picture to the pixels that a network takes: the one preprocessing of training, evaluation, export and service."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.metadata import ArtifactMetadata, PadSide, Resample

FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
"""Pillow's, which antialias."""


def fit(image: Image.Image, height: int, width: int, resample: Resample = "bicubic") -> NDArray[np.uint8]:
    """Resize to `height` x `width` pixels; the aspect ratio is not kept.

    By the bicubic filter that is bit for bit what the reference implementation (baudm/parseq) does. Normalisation is the
    network's, or the graph's.

    Returns:
        uint8 `(height, width, 3)`, RGB; it may be read-only.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(rgb.resize((width, height), FILTERS[resample]))


def fit_padded(
    image: Image.Image,
    height: int,
    width: int,
    value: tuple[int, int, int],
    side: PadSide,
    resample: Resample = "bicubic",
) -> NDArray[np.uint8]:
    """Resize so that it just fits into `height` x `width` pixels, the aspect ratio kept, and fill the rest.

    Args:
        image: Of any size and mode.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        value: To fill with: red, green and blue.
        side: `end` fills on the right or below; `both` on both sides alike, an odd pixel at the end.
        resample: The filter.

    Returns:
        uint8 `(height, width, 3)`, RGB.
    """
    scale = min(height / image.height, width / image.width)
    # However narrow it is, a pixel of it stays; rounding must not make it larger than there is room.
    rows, columns = (max(1, min(round(old * scale), room)) for old, room in ((image.height, height), (image.width, width)))
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = value
    top, left = ((height - rows) // 2, (width - columns) // 2) if side == "both" else (0, 0)
    pixels[top : top + rows, left : left + columns] = fit(image, rows, columns, resample)
    return pixels


def fit_for(metadata: ArtifactMetadata, image: Image.Image) -> NDArray[np.uint8]:
    """A picture as an artifact wants it: uint8 `(image_height, image_width, 3)`, RGB; it may be read-only."""
    size = metadata.image_height, metadata.image_width
    if metadata.pad_value is None or metadata.pad_side is None:
        return fit(image, *size, metadata.resample)
    return fit_padded(image, *size, metadata.pad_value, metadata.pad_side, metadata.resample)
