"""Small image files of every kind for tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def gradient(width: int = 24, height: int = 10) -> Image.Image:
    """A picture without any symmetry, smooth enough to survive JPEG."""
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 120, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))
