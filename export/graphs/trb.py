"""What TRBA and TRBC share, as ONNX nodes: from pixels to columns.

The rectification is float32 in every graph. A place that is rounded to half precision is off by a fraction of a pixel, and GPUs
have no kernel that samples in half precision.

Shapes: B batch, H and W of the image, F points, T columns, h `hidden_size`.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from export.graphs.builder import GraphBuilder
from export.graphs.parts import HALF_RANGE, centred_pixels, convolution_and_norm, write_layers
from export.graphs.recurrent import write_recurrent
from model.recognisers.parts.trb.features import ResidualBlock
from model.recognisers.parts.trb.network import TRBNetwork
from model.recognisers.parts.trb.rectification import LocalizationNetwork, Rectification


def write_columns(g: GraphBuilder, network: TRBNetwork, images: str) -> str:
    """Append all that comes before the prediction.

    Args:
        g: Where to.
        network: Its weights, in eval mode.
        images: uint8 `(B, H, W, 3)`.

    Returns:
        The columns, of the graph's float type, `(T, B, h)`.
    """
    g.scope("rectification")
    x, scale = _rectify(g, network.Transformation, images)
    g.scope("features")
    x = write_layers(g, x, network.FeatureExtraction.ConvNet.in_order(), "features", scale, _blocks)
    g.scope("recurrent")
    x = g.node("ReduceMean", [x, g.constant(np.array([2]), "height")], keepdims=0)  # (B, channels, T)
    return write_recurrent(g, g.transpose(x, (2, 0, 1)), network.SequenceModeling, "sequence")


def _rectify(g: GraphBuilder, rectification: Rectification, images: str) -> tuple[str, float]:
    """Pixels of the rectified image, float `(B, 3, H, W)`, and the factor that takes them to [-1, 1].

    Sampling between pixels and normalising them can be done in either order.
    """
    height, width = rectification.img_size
    half = g.half
    with g.full_precision():
        pixels, scale = centred_pixels(g, images)
        pixels = g.transpose(pixels, (0, 3, 1, 2))
        points = _points(g, rectification.LocalizationNetwork, pixels, scale)
        folded = g.constant(rectification.GridGenerator.folded, "rectification.folded")
        grid = g.reshape(g.matmul(folded, points), (0, height, width, 2))
        sampled = g.node("GridSample", [pixels, grid], mode="linear", padding_mode="border", align_corners=1)
        if not half:
            return sampled, scale
        normalised = g.node("Mul", [sampled, g.constant(np.array(1 / HALF_RANGE), "rectification.scale")])
    return g.cast(normalised, g.float_type), 1.0


def _points(g: GraphBuilder, network: LocalizationNetwork, pixels: str, scale: float) -> str:
    """Float32 `(B, F, 2)`."""
    *layers, _ = network.conv
    features = g.node("GlobalAveragePool", [write_layers(g, pixels, layers, "localization", scale)])
    first, last = network.localization_fc1[0], network.localization_fc2
    assert isinstance(first, nn.Linear)
    hidden = g.relu(g.linear(g.reshape(features, (0, first.in_features)), first.weight, first.bias, "localization.fc1"))
    return g.reshape(g.linear(hidden, last.weight, last.bias, "localization.fc2"), (0, last.out_features // 2, 2))


def _blocks(g: GraphBuilder, x: str, layer: nn.Module, name: str) -> str:
    """A sequence of residual blocks.

    Every convolution's sum is rounded where the graph rounds, also where only an addition follows: ONNX Runtime has an integer
    kernel for what stands between two roundings, and else would compute in floats with the rounded weights.
    """
    assert isinstance(layer, nn.Sequential)
    for index, block in enumerate(layer):
        assert isinstance(block, ResidualBlock)
        own = f"{name}.{index}"
        around = x
        if block.downsample is not None:
            convolution, norm = block.downsample
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            around = g.activation(convolution_and_norm(g, x, convolution, norm, f"{own}.around"), f"{own}.around")
        inner = g.activation(g.relu(convolution_and_norm(g, x, block.conv1, block.bn1, f"{own}.1")), f"{own}.inner")
        added = g.activation(convolution_and_norm(g, inner, block.conv2, block.bn2, f"{own}.2"), f"{own}.added")
        x = g.activation(g.relu(g.add(added, around)), own)
    return x
