"""From pixels to the input of a network."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(pixels: Tensor) -> Tensor:
    """uint8 `(B, H, W, 3)` to float32 `(B, 3, H, W)` in [-1, 1], bit for bit as baudm/parseq does it."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div(255).sub(0.5).div(0.5)


def channels_first(x: Tensor) -> Tensor:
    """A map `(B, C, H, W)` that lies in memory so, on a CPU.

    Convolutions keep the layout that they are given. Of maps that lie channels last the backward pass of narrow ones writes
    where it must not (PyTorch 2.13 with oneDNN on AVX-512), and the process dies sooner or later.
    """
    return x.contiguous() if x.device.type == "cpu" else x
