"""ABINet's language part and alignment as ONNX nodes.

Shapes: B batch, S steps, C classes, E width, H heads, D = E / H.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from export.graphs.abinet.layers import attend, feed_forward
from export.graphs.builder import GraphBuilder
from export.graphs.parts.attention import AttentionWeights, split_heads
from model.recognisers.abinet.language import MIN_LENGTH
from model.recognisers.abinet.layers import DecoderLayer
from model.recognisers.abinet.network import ABINet
from model.recognisers.parts.attention import KeyValueAttention

MASKED: Final = -30000.0
"""Added to the scores of what must not be seen: exp of it is 0, and two of them still fit a half-precision float."""


class LanguageGraph:
    """Appends iterations: to spell what was read, and to align it with what was seen."""

    def __init__(self, g: GraphBuilder, network: ABINet, features: str, penalty: str | None = None) -> None:
        """Compute once what all iterations need.

        Args:
            g: Where to.
            network: The weights, in eval mode.
            features: Float `(B, S, E)`, of the vision part.
            penalty: Float32 `(B or 1, C)`, added to all logits; None: nothing is.
        """
        self.g, self.network, self.features, self.penalty = g, network, features, penalty
        self.steps, self.classes = network.config.steps, network.config.classes
        self.heads = network.config.nhead
        self.width = network.config.d_model // self.heads
        g.scope("alignment")
        spelt, seen = network.alignment.w_att.weight.detach().chunk(2, 1)
        self._weigh_spelt = spelt
        self._weigh_seen = g.linear(features, seen, network.alignment.w_att.bias, "alignment.seen")

    def head(self, features: str, linear: nn.Linear, name: str) -> str:
        """Logits of features `(B, S, E)`, always float32: in half precision near ties become ties."""
        g = self.g
        features = g.cast(features, TensorProto.FLOAT) if g.half else features
        with g.full_precision():
            product = g.matmul(features, g.constant(linear.weight.T, f"{name}.weight"))
            return g.restrict(g.add(product, g.constant(linear.bias, f"{name}.bias")), self.penalty)

    def choose(self, logits: str) -> str:
        """The best token of each step, int64 `(B, S)`."""
        return self.g.node("ArgMax", [logits], axis=-1, keepdims=0)

    def iterate(self, logits: str) -> str:
        """Logits, float32 `(B, S, C)`, to those of one more iteration."""
        g, aligning = self.g, self.network.alignment
        padding = self._padding(self.choose(logits))
        spelt = self._spell(g.softmax(logits), padding)
        weighed = g.product(spelt, self._weigh_spelt, "alignment.spelt")
        share = g.node("Sigmoid", [g.add(weighed, self._weigh_seen)])
        fused = g.add(spelt, g.node("Mul", [share, g.node("Sub", [self.features, spelt])]))
        return self.head(fused, aligning.cls, "alignment.cls")

    def _padding(self, tokens: str) -> str:
        """Float `(B, 1, 1, S)`: hides what is behind the end of a text, of which two steps are always seen."""
        g, count = self.g, self.steps
        ended = g.node("Equal", [tokens, g.constant(np.array(0), "end_id")])
        ended = g.cast(ended, g.float_type)
        # Counts the ends before each position; the first two positions have none.
        counting = torch.ones(count, count).triu(1)
        counting[:, :MIN_LENGTH] = 0
        after = g.matmul(ended, g.constant(counting * MASKED, "language.after_end"))
        after = g.node("Max", [after, g.constant(np.array(MASKED), "language.masked")])
        return g.reshape(after, (0, 1, 1, count))

    def _spell(self, probabilities: str, padding: str) -> str:
        """Features of the language part, float `(B, S, E)`."""
        g, language = self.g, self.network.language
        probabilities = g.cast(probabilities, g.float_type) if g.half else probabilities
        # Not through `product`: to round probabilities evenly would lose the small ones.
        memory = g.matmul(probabilities, g.constant(language.proj.weight.T, "language.proj.weight"))
        memory = g.add(memory, g.constant(language.token_encoder.rows, "language.places"))
        itself = g.constant((torch.eye(self.steps) * MASKED)[None, None], "language.itself")
        blocked = g.add(padding, itself)
        x: str | Tensor = language.pos_encoder.rows.detach().double()[0]
        for index, layer in enumerate(language.model.layers):
            assert isinstance(layer, DecoderLayer)
            x = self._layer(layer, x, memory, padding, blocked, f"language.{index}")
        assert isinstance(x, str)
        return x

    def _layer(self, layer: DecoderLayer, x: str | Tensor, memory: str, padding: str, blocked: str, name: str) -> str:
        """One layer; `x` is float `(B, S, E)`, or float64 `(S, E)` where it is known at export."""
        g = self.g
        if layer.has_self_attn:
            own = self._attend_to_itself(layer.self_attn, x, padding, f"{name}.self")
            x = g.layer_norm(own, layer.norm1, f"{name}.norm1")
        seen = self._attend(layer.multihead_attn, x, memory, blocked, f"{name}.cross")
        x = g.layer_norm(seen, layer.norm2, f"{name}.norm2")
        return g.layer_norm(g.add(x, feed_forward(g, layer, x, name)), layer.norm3, f"{name}.norm3")

    def _attend_to_itself(self, attention: KeyValueAttention, x: str | Tensor, mask: str, name: str) -> str:
        """`x` and what it gets from itself."""
        if isinstance(x, str):
            return self._attend(attention, x, x, mask, name)
        # Only which texts have ended is not known.
        g, weights = self.g, AttentionWeights(attention)
        key, value = self._known_heads(x @ weights.key_value).chunk(2)
        known = self._known_queries(weights, x) @ key.transpose(1, 2)
        scores = g.add(mask, g.constant(known[None], f"{name}.scores"))
        mixed = attend(g, scores, g.constant(value[None], f"{name}.values"), weights, self.steps, f"{name}.out")
        return g.add(mixed, g.constant(x, f"{name}.residual"))

    def _attend(self, attention: KeyValueAttention, x: str | Tensor, content: str, mask: str, name: str) -> str:
        """`x` and what it gets from the content, float `(B, S, E)`."""
        g, weights = self.g, AttentionWeights(attention)
        if isinstance(x, Tensor):
            query = g.constant(self._known_queries(weights, x)[None], f"{name}.queries")
            residual = g.constant(x, f"{name}.residual")
        else:
            query = self._heads(g.linear(x, weights.query.T, weights.query_bias, f"{name}.query"))
            residual = x
        keys, values = g.split(g.product(content, weights.key_value.T, f"{name}.key_value"), 2, -1)
        key = g.transpose(g.reshape(keys, (0, self.steps, self.heads, self.width)), (0, 2, 3, 1))
        scores = g.add(g.matmul(query, key), mask)
        return g.add(attend(g, scores, self._heads(values), weights, self.steps, f"{name}.out"), residual)

    def _known_queries(self, weights: AttentionWeights, x: Tensor) -> Tensor:
        """Float64 `(S, E)` to `(H, S, D)`."""
        return self._known_heads(x @ weights.query + weights.query_bias)

    def _known_heads(self, x: Tensor) -> Tensor:
        """`(S, n * D)` to `(n, S, D)`."""
        return x.view(self.steps, -1, self.width).transpose(0, 1)

    def _heads(self, x: str) -> str:
        return split_heads(self.g, x, self.steps, self.heads, self.width)
