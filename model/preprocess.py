"""Images to network input, bit for bit as the reference implementation does it.

Bicubic resize of the RGB image (Pillow's, which antialiases when it shrinks) without keeping the aspect ratio, then
`(x / 255 - 0.5) / 0.5`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def resize(image: Image.Image, img_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Any Pillow image to uint8 `(height, width, 3)`; `img_size` is (height, width) in pixels."""
    height, width = img_size
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.array(rgb.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 `(B, H, W, 3)` to float32 `(B, 3, H, W)` in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div(255).sub(0.5).div(0.5)
