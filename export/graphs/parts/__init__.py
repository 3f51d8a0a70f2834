"""Parts of graphs that recognisers share: the pixels of a picture, and convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from export.graphs.builder import GraphBuilder

WriteLayer = Callable[[GraphBuilder, str, nn.Module, str], str]
"""Writes one layer of a network: gets the builder, a value, float `(B, C, H, W)`, the layer, and its name."""

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


def write_layers(
    g: GraphBuilder, x: str, layers: Iterable[nn.Module], name: str, scale: float = 1.0, write_other: WriteLayer | None = None
) -> str:
    """Write layers one after another: convolutions, each with the batch norm after it folded in, and others.

    Args:
        g: The builder.
        x: Float `(B, C, H, W)`; the first convolution reads `scale` times `x`.
        layers: The layers in order.
        name: Prefix of the layers' names, which their numbers complete.
        scale: See `x`.
        write_other: Writes layers of other kinds; its result must have gone through `GraphBuilder.activation`.
    """
    layers = list(layers)
    key = f"{name}.input"
    x = g.activation(x, key)
    for index, layer in enumerate(layers):
        before, key = key, f"{name}.{index}"
        if isinstance(layer, nn.Conv2d):
            following = layers[index + 1]
            norm = following if isinstance(following, nn.BatchNorm2d) else None
            x = convolution_and_norm(g, x, layer, norm, key, scale)
            scale = 1.0
        elif isinstance(layer, nn.ReLU):
            x = g.activation(g.relu(x), key)
        elif isinstance(layer, nn.LeakyReLU):
            leaky = g.node("LeakyRelu", [g.activation(x, f"{key}.input")], alpha=layer.negative_slope)
            x = g.activation(leaky, key)
        elif isinstance(layer, nn.MaxPool2d):
            # The largest of rounded values is rounded already.
            key = before
            x = g.activation(max_pool(g, x, layer), key)
        elif isinstance(layer, nn.BatchNorm2d):
            key = before
        elif write_other is not None:
            x = write_other(g, x, layer, key)
        else:
            raise TypeError(f"cannot export a layer of type {type(layer).__name__}")
    return x


def max_pool(g: GraphBuilder, x: str, pool: nn.MaxPool2d) -> str:
    """Max pooling; its padding is less than any value."""
    kernel, strides, padding = (_pair(size) for size in (pool.kernel_size, pool.stride, pool.padding))
    return g.node("MaxPool", [x], kernel_shape=kernel, strides=strides, pads=padding * 2)


def _pair(size: int | tuple[int, ...]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def convolution_and_norm(
    g: GraphBuilder, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, name: str, scale: float = 1.0
) -> str:
    """A convolution with batch norm (if there is one) folded into it, of `scale` times `x`, float `(B, C, H, W)`."""
    if norm is not None:
        weight, bias = fold_batch_norm(conv, norm)
    else:
        assert conv.bias is not None
        weight, bias = conv.weight.detach().double(), conv.bias
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
