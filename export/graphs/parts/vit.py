"""Patches and blocks of vision transformers as ONNX nodes.

Shapes: B batch, N tokens, E width of the network, H heads, D = E / H.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export.graphs.builder import GraphBuilder
from export.graphs.parts import HALF_RANGE, centred_pixels
from model.recognisers.parts.vit import EncoderBlock, PatchEmbed, SelfAttention


def write_patches(
    g: GraphBuilder,
    stem: PatchEmbed,
    grid: tuple[int, int],
    images: str,
    pos_embed: Tensor,
    class_token: Tensor | None = None,
) -> str:
    """Append the stem. A convolution whose kernel is its stride is one product; normalisation and positions are folded into it.

    Args:
        g: Where to.
        stem: Its weights.
        grid: Rows and columns of patches.
        images: uint8 `(B, H, W, 3)`.
        pos_embed: Float `(1, N, E)`, added to the tokens.
        class_token: Float `(1, 1, E)`: a token that stands in front of the patches; the first position is its own.

    Returns:
        Tokens of the graph's float type, `(B, N, E)`.
    """
    (rows, columns), (height, width) = grid, stem.proj.weight.shape[2:]
    assert stem.proj.bias is not None
    # (E, 3, height, width) to (height, width, 3, E): the order in which the pixels lie.
    weight = stem.proj.weight.detach().double().permute(2, 3, 1, 0).flatten(0, 2)
    positions = pos_embed.detach().double()
    bias = stem.proj.bias.detach().double() + positions[:, -rows * columns :]
    if g.half:
        pixels, scale = centred_pixels(g, images)
    else:
        # The shift goes into the bias. In half precision the large sums that it cancels would be rounded.
        pixels, scale, bias = g.cast(images, g.float_type), 1 / HALF_RANGE, bias - weight.sum(0)
    x = g.reshape(pixels, (0, rows, height, columns, width * 3))
    x = g.reshape(g.transpose(x, (0, 1, 3, 2, 4)), (0, rows * columns, height * width * 3))
    if class_token is not None:
        # A patch of zeros gives the bias alone. Without the batch size such a row is had by taking one from itself.
        first = slice_rows(g, x, 0, 1)
        x = g.concat([g.node("Sub", [first, first]), x], 1)
        bias = torch.cat([class_token.detach().double() + positions[:, :1], bias], 1)
    x = g.matmul(x, g.constant(weight * scale, "stem.weight"))
    return g.add(x, g.constant(bias, "stem.bias"))


def write_block(
    g: GraphBuilder, block: EncoderBlock, positions: int, x: str, name: str, asking: tuple[int, int] | None = None
) -> str:
    """Append a pre-norm transformer block.

    Args:
        g: Where to.
        block: Its weights.
        positions: N.
        x: Float `(B, N, E)`.
        name: For names.
        asking: First position, and that behind the last, of which the result is wanted: all of them without it. In the last
            block the others need no queries, and nothing of what follows the attention.

    Returns:
        Float `(B, N, E)`, or of the positions asked for.
    """
    mixed = _self_attention(g, block.attn, positions, g.layer_norm(x, block.norm1, f"{name}.norm1"), name, asking)
    x = g.add(x if asking is None else slice_rows(g, x, *asking), mixed)
    hidden = g.layer_norm(x, block.norm2, f"{name}.norm2")
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    hidden = g.gelu(g.linear(hidden, fc1.weight, fc1.bias, f"{name}.fc1"))
    return g.add(x, g.linear(hidden, fc2.weight, fc2.bias, f"{name}.fc2"))


def _self_attention(
    g: GraphBuilder, attn: SelfAttention, positions: int, x: str, name: str, asking: tuple[int, int] | None
) -> str:
    heads, embed_dim = attn.num_heads, attn.proj.in_features
    width = embed_dim // heads
    # The scale of the scores goes into the queries' weights: no node, and no square root of a shape at run time.
    scale = torch.ones(3 * embed_dim, dtype=torch.float64)
    scale[:embed_dim] = width**-0.5
    weight = attn.qkv.weight.detach().double() * scale[:, None]
    bias = attn.qkv.bias.detach().double() * scale
    queries = positions
    if asking is None:
        query, key, value = g.split(g.linear(x, weight, bias, f"{name}.qkv"), 3, -1)
    else:
        queries = asking[1] - asking[0]
        query = g.linear(slice_rows(g, x, *asking), weight[:embed_dim], bias[:embed_dim], f"{name}.query")
        key, value = g.split(g.linear(x, weight[embed_dim:], bias[embed_dim:], f"{name}.key_value"), 2, -1)
    q = g.reshape(query, (0, queries, heads, width))
    k, v = (g.reshape(part, (0, positions, heads, width)) for part in (key, value))
    scores = g.matmul(g.transpose(q, (0, 2, 1, 3)), g.transpose(k, (0, 2, 3, 1)))
    mixed = g.matmul(g.softmax(scores), g.transpose(v, (0, 2, 1, 3)))
    merged = g.reshape(g.transpose(mixed, (0, 2, 1, 3)), (0, queries, embed_dim))
    return g.linear(merged, attn.proj.weight, attn.proj.bias, f"{name}.proj")


def slice_rows(g: GraphBuilder, x: str, start: int, stop: int) -> str:
    """Positions from `start` to before `stop`: `(B, N, E)` to `(B, stop - start, E)`."""
    return g.node("Slice", [x, *(g.constant(np.array([value]), f"index_{value}") for value in (start, stop, 1))])
