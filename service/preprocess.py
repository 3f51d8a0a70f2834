"""From a picture to the crop a model takes. Bit-equal to the reference: Pillow's bicubic resize, aspect not kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.engine.types import Crop


def to_crop(image: Image.Image, height: int, width: int) -> Crop:
    """Resize an RGB picture to `height` x `width` pixels: uint8 `[height, width, 3]`. Normalisation is in the graph."""
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
