"""ViTSTR as ONNX nodes.

The answer is read at positions 1 to T + 1, so the last block is written for them alone: there all positions give keys and
values, only these ask.

Shapes: B batch, N patches, T `max_label_length`, S = T + 1 steps, C classes, E `embed_dim`.
"""

from __future__ import annotations

import math
from typing import Final

from onnx import TensorProto

from export.graphs.builder import GraphBuilder
from export.graphs.interface import Answer, Graph, NoOptions
from export.graphs.parts.vit import write_block, write_patches
from model.recognisers.parts.vit import EncoderBlock
from model.recognisers.vitstr.network import ViTSTR


class ViTSTRGraph(Graph[NoOptions]):
    """Encoder and head; all steps are read at once."""

    RESTRICTS = True

    def read(self, g: GraphBuilder, network: ViTSTR, options: NoOptions, images: str, penalty: str | None = None) -> Answer:
        """The best class of each step."""
        steps = network.config.max_label_length + 1
        logits = g.restrict(_head(g, network, _encoder(g, network, images, steps), steps), penalty)
        return Answer(g.node("ArgMax", [logits], axis=-1, keepdims=0), logits)


GRAPH: Final = ViTSTRGraph()


def _encoder(g: GraphBuilder, network: ViTSTR, images: str, steps: int) -> str:
    """The tokens of the steps, not yet normed, of the graph's float type, `(B, S, E)`."""
    config = network.config
    g.scope("stem")
    x = write_patches(g, network.patch_embed, config.grid, images, network.pos_embed, network.cls_token)
    for index, block in enumerate(network.blocks):
        assert isinstance(block, EncoderBlock)
        name = f"encoder.{index}"
        g.scope(name)
        last = index == config.depth - 1
        # The class token stands at position 0.
        x = write_block(g, block, 1 + math.prod(config.grid), x, name, asking=(1, 1 + steps) if last else None)
    return x


def _head(g: GraphBuilder, network: ViTSTR, x: str, steps: int) -> str:
    """Norm and logits, float32 `(B, S, C)`: in half precision near ties would become ties."""
    g.scope("head")
    # Two axes: of a sum and a norm over three ONNX Runtime makes one operator, which takes three times as long on a CPU.
    x = g.reshape(x, (-1, network.config.embed_dim))
    x = g.cast(x, TensorProto.FLOAT) if g.half else x
    head = network.head
    with g.full_precision():
        normed = g.layer_norm(x, network.norm, "norm")
        logits = g.add(g.matmul(normed, g.weight(head.weight, "head")), g.constant(head.bias, "head.bias"))
    return g.reshape(logits, (-1, steps, head.out_features))
