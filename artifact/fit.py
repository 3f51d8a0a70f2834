"""From a picture to the pixels that a network takes: the one preprocessing of training, evaluation, export and service."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def fit(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    """Resize to `height` x `width` pixels by Pillow's bicubic filter, which antialiases; the aspect ratio is not kept.

    That is bit for bit what the reference implementation (baudm/parseq) does. Normalisation is the network's, or the graph's.

    Returns:
        uint8 `(height, width, 3)`, RGB; it may be read-only.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(rgb.resize((width, height), Image.Resampling.BICUBIC))
