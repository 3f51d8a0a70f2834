"""Parts of graphs that recognisers share: the pixels of a picture, and convolutions."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from export.graphs.builder import GraphBuilder

HALF_RANGE: Final = 127.5
"""Pixels are normalised as (x / 255 - 0.5) / 0.5 = x / 127.5 - 1."""
HALF_PRECISION_STEP: Final = 128.0
"""In half precision centred pixels are divided by this, which is exact; weights made that much smaller would lose digits."""


def centred_pixels(g: GraphBuilder, images: str) -> tuple[str, float]:
    """Pixels around 0, and the factor that takes them to [-1, 1], for the first weights to absorb."""
    centred = g.node("Sub", [g.cast(images, g.float_type), g.constant(np.array(HALF_RANGE), "stem.centre")])
    if not g.half:
        return centred, 1 / HALF_RANGE
    step = g.constant(np.array(1 / HALF_PRECISION_STEP), "stem.step")
    return g.node("Mul", [centred, step]), HALF_PRECISION_STEP / HALF_RANGE


def convolution_and_norm(g: GraphBuilder, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d, name: str, scale: float = 1.0) -> str:
    """A convolution with batch norm folded into it, of `scale` times `x`, float `(B, C, H, W)`."""
    weight, bias = fold_batch_norm(conv, norm)
    pads = [int(p) for p in conv.padding] * 2
    return g.convolution(x, weight * scale, bias, name, strides=conv.stride, pads=pads)


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight `(out, in, kh, kw)` and bias `(out,)`, float64, of one convolution that does what `norm(conv(x))` does in eval."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.detach().double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double() * scale
    return conv.weight.detach().double() * scale[:, None, None, None], bias
