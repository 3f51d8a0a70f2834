"""PARSeq's image encoder as ONNX nodes.

Shapes: B batch, N encoder tokens, E `embed_dim`.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from export.graphs.builder import GraphBuilder
from export.graphs.parts import centred_pixels, convolution_and_norm, write_layers
from export.graphs.parts.vit import write_block, write_patches
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.encoder import Encoder, ResidualBlock, ResidualStem
from model.recognisers.parts.vit import EncoderBlock, PatchEmbed


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
        x = write_patches(g, stem, config.grid, images, encoder.pos_embed)
    else:
        raise TypeError(f"cannot export a stem of type {type(stem).__name__}")
    for index, block in enumerate(encoder.blocks):
        assert isinstance(block, EncoderBlock)
        g.scope(f"encoder.{index}")
        x = write_block(g, block, math.prod(config.grid), x, f"encoder.{index}")
    g.scope("encoder")
    # Of a sum and a norm over three axes ONNX Runtime makes one operator, which takes three times as long on a CPU.
    normed = g.layer_norm(g.reshape(x, (-1, config.embed_dim)), encoder.norm, "encoder.norm")
    return g.reshape(normed, (-1, math.prod(config.grid), config.embed_dim))


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
