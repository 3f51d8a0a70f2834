"""PARSeq's image encoder as ONNX nodes.

Shapes: B batch, N encoder tokens, E `embed_dim`, H heads, D = E / H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from export.graphs.builder import GraphBuilder
from export.graphs.parts import HALF_RANGE, centred_pixels, convolution_and_norm, write_layers
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.encoder import Encoder, EncoderBlock, PatchEmbed, ResidualBlock, ResidualStem


def write_encoder(g: GraphBuilder, encoder: Encoder, config: PARSeqConfig, images: str) -> str:
    """Append the encoder.

    Args:
        g: Where to.
        encoder: Its weights, in eval mode.
        config: Its sizes.
        images: uint8 `(B, H, W, 3)`.

    Returns:
        The memory, of the graph's float type, `(B, N, E)`.
    """
    g.scope("stem")
    stem = encoder.patch_embed
    if isinstance(stem, ResidualStem):
        x = _residual_stem(g, stem, config, images, encoder.pos_embed)
    elif isinstance(stem, PatchEmbed):
        x = _patch_embed(g, stem, config, images, encoder.pos_embed)
    else:
        raise TypeError(f"cannot export a stem of type {type(stem).__name__}")
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, EncoderBlock)
        g.scope(f"encoder.{index}")
        x = _block(g, block, config, x, f"encoder.{index}")
    g.scope("encoder")
    # Of a sum and a norm over three axes ONNX Runtime makes one operator, which takes three times as long on a CPU.
    normed = g.layer_norm(g.reshape(x, (-1, config.embed_dim)), encoder.norm, "encoder.norm")
    return g.reshape(normed, (-1, math.prod(config.grid), config.embed_dim))


def _patch_embed(g: GraphBuilder, stem: PatchEmbed, config: PARSeqConfig, images: str, pos_embed: Tensor) -> str:
    """A convolution whose kernel is its stride is one matrix product; normalisation and positions are folded into it."""
    (rows, columns), (height, width) = config.grid, config.patch_size
    assert stem.proj.bias is not None
    # (E, 3, height, width) to (height, width, 3, E): the order in which the pixels lie.
    weight = stem.proj.weight.detach().double().permute(2, 3, 1, 0).flatten(0, 2)
    bias = stem.proj.bias.detach().double() + pos_embed.detach().double()
    if g.half:
        pixels, scale = centred_pixels(g, images)
    else:
        # The shift goes into the bias. In half precision the large sums that it cancels would be rounded.
        pixels, scale, bias = g.cast(images, g.float_type), 1 / HALF_RANGE, bias - weight.sum(0)
    x = g.reshape(pixels, (0, rows, height, columns, width * 3))
    x = g.reshape(g.transpose(x, (0, 1, 3, 2, 4)), (0, rows * columns, height * width * 3))
    x = g.matmul(x, g.constant(weight * scale, "stem.weight"))
    return g.add(x, g.constant(bias, "stem.bias"))


def _residual_stem(g: GraphBuilder, stem: ResidualStem, config: PARSeqConfig, images: str, pos_embed: Tensor) -> str:
    """Convolutions with batch norm folded in. The padding is 0 after normalisation, so the shift stays in front."""
    centred, scale = centred_pixels(g, images)
    x = write_layers(g, g.transpose(centred, (0, 3, 1, 2)), stem.stages, "stem", scale, _residual_block)
    rows, columns = config.grid
    x = g.transpose(g.reshape(x, (0, config.embed_dim, rows * columns)), (0, 2, 1))
    return g.add(x, g.constant(pos_embed, "stem.pos_embed"))


def _residual_block(g: GraphBuilder, x: str, block: nn.Module, name: str) -> str:
    assert isinstance(block, ResidualBlock)
    inner = g.activation(g.relu(convolution_and_norm(g, x, block.conv1, block.norm1, f"{name}.1")), f"{name}.inner")
    added = g.activation(convolution_and_norm(g, inner, block.conv2, block.norm2, f"{name}.2"), f"{name}.added")
    return g.activation(g.relu(g.add(x, added)), name)


def _block(g: GraphBuilder, block: EncoderBlock, config: PARSeqConfig, x: str, name: str) -> str:
    """A pre-norm transformer block, `(B, N, E)` to the same."""
    x = g.add(x, _self_attention(g, block, config, g.layer_norm(x, block.norm1, f"{name}.norm1"), name))
    hidden = g.layer_norm(x, block.norm2, f"{name}.norm2")
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    hidden = g.gelu(g.linear(hidden, fc1.weight, fc1.bias, f"{name}.fc1"))
    return g.add(x, g.linear(hidden, fc2.weight, fc2.bias, f"{name}.fc2"))


def _self_attention(g: GraphBuilder, block: EncoderBlock, config: PARSeqConfig, x: str, name: str) -> str:
    heads, embed_dim = config.enc_num_heads, config.embed_dim
    width = embed_dim // heads
    positions = math.prod(config.grid)
    qkv = block.attn.qkv
    # The scale of the scores goes into the queries' weights: no node, and no square root of a shape at run time.
    scale = torch.ones(3 * embed_dim, dtype=torch.float64)
    scale[:embed_dim] = width**-0.5
    weight = qkv.weight.detach().double() * scale[:, None]
    fused = g.linear(x, weight, qkv.bias.detach().double() * scale, f"{name}.qkv")
    parts = g.split(fused, 3, -1)
    q, k, v = (g.reshape(part, (0, positions, heads, width)) for part in parts)
    scores = g.matmul(g.transpose(q, (0, 2, 1, 3)), g.transpose(k, (0, 2, 3, 1)))
    mixed = g.matmul(g.softmax(scores), g.transpose(v, (0, 2, 1, 3)))
    merged = g.reshape(g.transpose(mixed, (0, 2, 1, 3)), (0, positions, embed_dim))
    return g.linear(merged, block.attn.proj.weight, block.attn.proj.bias, f"{name}.proj")
