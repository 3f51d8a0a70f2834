"""ABINet's vision part as ONNX nodes.

Shapes: B batch, N = 256 positions of the map, S steps, E width, H heads, D = E / H.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.graphs.abinet.layers import attend, feed_forward, known
from export.graphs.builder import GraphBuilder
from export.graphs.parts import centred_pixels, convolution_and_norm
from export.graphs.parts.attention import AttentionWeights, split_heads
from model.recognisers.abinet.config import MAP
from model.recognisers.abinet.layers import EncoderLayer
from model.recognisers.abinet.vision import (
    POSITIONS,
    AdditiveAttention,
    PositionAttention,
    ResidualBlock,
    ResNet,
    TransformerBackbone,
    Vision,
)


def write_vision(g: GraphBuilder, vision: Vision, images: str, *, float32_features: bool) -> str:
    """Append the vision part without its head.

    Args:
        g: Where to.
        vision: Its weights, in eval mode.
        images: uint8 `(B, 32, 128, 3)`.
        float32_features: Compute in float32 what may be too large for half precision: from the last stage of the residual
            network to the first norm behind it.

    Returns:
        Features of the steps, of the graph's float type, `(B, S, E)`.
    """
    backbone, kept = vision.backbone, float32_features and g.half
    if isinstance(backbone, TransformerBackbone):
        x = _resnet(g, backbone.resnet, images, float32_tail=kept)
        layers = list(backbone.transformer.layers)
        for index, layer in enumerate(layers):
            assert isinstance(layer, EncoderLayer)
            g.scope(f"vision.{index}")
            positions = backbone.pos_encoder.rows if index == 0 else None
            x = _layer(g, layer, x, f"vision.{index}", positions, float32=kept and index == 0)
        return _attention(g, vision.attention, x)
    assert isinstance(backbone, ResNet)
    x = _resnet(g, backbone, images, float32_tail=kept)
    if not kept:
        return _attention(g, vision.attention, x)
    with g.full_precision():
        features = _attention(g, vision.attention, x)
    return g.cast(features, g.float_type)


def _resnet(g: GraphBuilder, resnet: ResNet, images: str, *, float32_tail: bool) -> str:
    """The residual network, `(B, N, E)`. Batch norms are folded in; the padding is 0 after normalisation, so the shift stays in
    front."""
    g.scope("resnet")
    centred, scale = centred_pixels(g, images)
    x = g.activation(g.transpose(centred, (0, 3, 1, 2)), "resnet.input")
    x = g.activation(g.relu(convolution_and_norm(g, x, resnet.conv1, resnet.bn1, "resnet.stem", scale)), "resnet.stem")
    *stages, last = resnet.stages()
    for number, blocks in enumerate(stages, start=1):
        x = _stage(g, blocks, x, f"resnet.{number}")
    name = f"resnet.{len(stages) + 1}"
    if float32_tail:
        with g.full_precision():
            x = _stage(g, last, g.cast(x, TensorProto.FLOAT), name)
    else:
        x = _stage(g, last, x, name)
    return g.transpose(g.reshape(x, (0, -1, POSITIONS)), (0, 2, 1))


def _stage(g: GraphBuilder, blocks: list[ResidualBlock], x: str, name: str) -> str:
    g.scope(name)
    for index, block in enumerate(blocks):
        x = _block(g, block, x, f"{name}.{index}")
    return x


def _block(g: GraphBuilder, block: ResidualBlock, x: str, name: str) -> str:
    inner = g.activation(g.relu(convolution_and_norm(g, x, block.conv1, block.bn1, f"{name}.1")), f"{name}.inner")
    added = g.activation(convolution_and_norm(g, inner, block.conv2, block.bn2, f"{name}.2"), f"{name}.added")
    if block.downsample is not None:
        conv, norm = block.downsample
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        x = g.activation(convolution_and_norm(g, x, conv, norm, f"{name}.shortcut"), f"{name}.shortcut")
    return g.activation(g.relu(g.add(added, x)), name)


def _layer(g: GraphBuilder, layer: EncoderLayer, x: str, name: str, positions: Tensor | None, *, float32: bool) -> str:
    """A post-norm transformer layer, `(B, N, E)` to the same; `positions` are added to what comes in.

    With `float32` what comes in is so, and all is up to the first norm.
    """
    if float32:
        with g.full_precision():
            x = _attend_to_itself(g, layer, x, name, positions)
        x = g.cast(x, g.float_type)
    else:
        x = _attend_to_itself(g, layer, x, name, positions)
    return g.layer_norm(g.add(x, feed_forward(g, layer, x, name)), layer.norm2, f"{name}.norm2")


def _attend_to_itself(g: GraphBuilder, layer: EncoderLayer, x: str, name: str, positions: Tensor | None) -> str:
    if positions is not None:
        x = g.add(x, g.constant(positions, f"{name}.positions"))
    weights, heads = AttentionWeights(layer.self_attn), layer.self_attn.num_heads
    width = len(weights.out_bias)
    fused = torch.cat([weights.query, weights.key_value], 1)
    bias = torch.cat([weights.query_bias, torch.zeros(2 * width, dtype=torch.float64)])
    parts = g.split(g.linear(x, fused.T, bias, f"{name}.qkv"), 3, -1)
    query, value = (split_heads(g, part, POSITIONS, heads, width // heads) for part in (parts[0], parts[2]))
    key = g.transpose(g.reshape(parts[1], (0, POSITIONS, heads, width // heads)), (0, 2, 3, 1))
    mixed = attend(g, g.matmul(query, key), value, weights, POSITIONS, f"{name}.out")
    return g.layer_norm(g.add(x, mixed), layer.norm1, f"{name}.norm1")


def _attention(g: GraphBuilder, attention: nn.Module, x: str) -> str:
    """From positions `(B, N, E)` to steps `(B, S, E)`."""
    g.scope("vision.attention")
    if isinstance(attention, PositionAttention):
        scores = _position_scores(g, attention, x)
    elif isinstance(attention, AdditiveAttention):
        scores = _additive_scores(g, attention, x)
    else:
        raise TypeError(f"cannot export an attention of type {type(attention).__name__}")
    return g.matmul(g.softmax(scores), x)


def _position_scores(g: GraphBuilder, attention: PositionAttention, x: str) -> str:
    """Float `(B, S, N)`: constant queries, and keys from the hourglass."""
    key = g.reshape(g.transpose(x, (0, 2, 1)), (0, -1, *MAP))
    maps = []
    for index, down in enumerate(attention.k_encoder):
        key = _convolve(g, down, key, f"vision.keys.down.{index}")
        maps.append(key)
    for index, up in enumerate(attention.k_decoder):
        key = _convolve(g, up, key, f"vision.keys.up.{index}")
        if index < len(maps) - 1:
            key = g.add(key, maps[-2 - index])
    queries = known(attention.project, attention.pos_encoder.rows) / math.sqrt(attention.project.in_features)
    return g.matmul(g.constant(queries, "vision.queries"), g.reshape(key, (0, -1, POSITIONS)))


def _convolve(g: GraphBuilder, layers: nn.Module, x: str, name: str) -> str:
    """A convolution with norm, perhaps of an enlarged map."""
    assert isinstance(layers, nn.Sequential)
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Upsample):
            x = _enlarge(g, x, layer.scale_factor)
        elif isinstance(layer, nn.Conv2d):
            norm = layers[index + 1]
            assert isinstance(norm, nn.BatchNorm2d)
            x = convolution_and_norm(g, g.activation(x, f"{name}.input"), layer, norm, name)
    return g.relu(x)


def _enlarge(g: GraphBuilder, x: str, factors: object) -> str:
    """Every number of a map several times."""
    assert isinstance(factors, tuple)
    # Scales are float32 whatever the map is.
    with g.full_precision():
        scales = g.constant(np.array([1, 1, *factors], dtype=np.float32), "scales_" + "_".join(str(int(f)) for f in factors))
    return g.node("Resize", [x, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _additive_scores(g: GraphBuilder, attention: AdditiveAttention, x: str) -> str:
    """Float `(B, S, N)`. The scores' bias is left out: it moves all of a step together, which no softmax sees."""
    order = known(attention.w0, attention.f0_embedding.weight.T).T
    bias = order + attention.wv.bias.detach().double()
    mixed = g.node("Tanh", [g.linear(x, attention.wv.weight, bias, "vision.mix")])
    return g.transpose(g.product(mixed, attention.we.weight, "vision.scores"), (0, 2, 1))
