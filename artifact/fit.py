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
"""Pillow's filters, which antialias."""


def fit(image: Image.Image, height: int, width: int, resample: Resample = "bicubic") -> NDArray[np.uint8]:
    """Resize to `height` x `width` pixels; the aspect ratio is not kept.

    With the bicubic filter the result is bit for bit that of the reference implementation (baudm/parseq). Normalisation is left
    to the network or graph.

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
    """Resize a picture so that it just fits into `height` x `width` pixels with its aspect ratio kept, and fill the rest.

    Args:
        image: A picture of any size and mode.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        value: Red, green and blue of the filling.
        side: `end` fills on the right or below; `both` on both sides alike, an odd pixel at the end.
        resample: The filter.

    Returns:
        uint8 `(height, width, 3)`, RGB.
    """
    scale = min(height / image.height, width / image.width)
    # At least a pixel of a narrow picture stays, and rounding must not make it larger than the room.
    rows, columns = (max(1, min(round(old * scale), room)) for old, room in ((image.height, height), (image.width, width)))
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = value
    top, left = ((height - rows) // 2, (width - columns) // 2) if side == "both" else (0, 0)
    pixels[top : top + rows, left : left + columns] = fit(image, rows, columns, resample)
    return pixels


def fit_for(metadata: ArtifactMetadata, image: Image.Image) -> NDArray[np.uint8]:
    """A picture as an artifact's graph takes it: uint8 `(image_height, image_width, 3)`, RGB; it may be read-only."""
    size = metadata.image_height, metadata.image_width
    if metadata.pad_value is None or metadata.pad_side is None:
        return fit(image, *size, metadata.resample)
    return fit_padded(image, *size, metadata.pad_value, metadata.pad_side, metadata.resample)
