"""One layer of PARSeq's decoder as ONNX nodes.

Shapes: B batch, N encoder tokens, L queries, n content tokens, E `embed_dim`, H heads, D = E / H. One query is `(B, E)`,
or `(B, 1, E)` where the builder wants it so; several are `(B, L, E)`. Keys and values of content are kept together,
`(B, 2H, n, D)`, keys first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from export.graphs.builder import GraphBuilder
from export.graphs.parts.attention import AttentionWeights
from model.recognisers.parseq.decoder import DecoderLayer


class LayerGraph:
    """Appends the parts of one layer to a graph."""

    def __init__(self, g: GraphBuilder, layer: DecoderLayer, depth: int, memory: str, positions: int) -> None:
        """Project the memory: its keys and values are computed once.

        Args:
            g: Where to.
            layer: The weights.
            depth: The layer's number, for names.
            memory: Float `(B, N, E)`.
            positions: N.
        """
        self.g = g
        self.layer = layer
        self.name = f"decoder.{depth}"
        self.own = AttentionWeights(layer.self_attn)
        self.cross = AttentionWeights(layer.cross_attn)
        self.heads = layer.self_attn.num_heads
        self.embed_dim = layer.linear1.in_features
        self.width = self.embed_dim // self.heads
        memory = g.activation(memory, f"{self.name}.memory")
        # Two products rather than one that would have to be cut in two.
        keys, values = (
            g.reshape(g.matmul(memory, g.weight(part.T, f"{self.name}.cross.{which}")), (0, positions, self.heads, self.width))
            for which, part in zip(("key", "value"), self.cross.key_value.chunk(2, -1), strict=True)
        )
        self.memory_keys = g.transpose(keys, (0, 2, 3, 1))
        self.memory_values = g.transpose(values, (0, 2, 1, 3))

    def norm_query(self, query: str) -> str:
        """The query stream's norm."""
        return self.g.layer_norm(query, self.layer.norm_q, f"{self.name}.norm_q")

    def norm_content(self, content: str) -> str:
        """The content stream's norm."""
        return self.g.layer_norm(content, self.layer.norm_c, f"{self.name}.norm_c")

    def constant_query(self, queries: Tensor) -> str:
        """Queries that are known at export: float64 `(L, E)`, not normalised, to a constant `(1, H, L, D)`."""
        return self.g.constant(self._known_query(queries, self.layer.norm_q, self.own)[None], f"{self.name}.queries")

    def query_table(self, queries: Tensor) -> Tensor:
        """The same as a table with a row for each position, `(L, H, 1, D)`."""
        return self._known_query(queries, self.layer.norm_q, self.own).transpose(0, 1)[:, :, None]

    def start_table(self, queries: Tensor) -> Tensor:
        """What `stream_from` begins with, a row for each position: float64 `(L, E)` to the same."""
        return queries + self.own.out_bias

    def query(self, normed: str, count: int) -> str:
        """Queries of the self-attention, `(B, H, L, D)`, from a normalised stream of `count` positions."""
        return self._project_query(normed, self.own, count, "self")

    def key_value(self, normed: str, count: int) -> str:
        """Keys and values, `(B, 2H, n, D)`, of `count` normalised content tokens."""
        projected = self.g.product(normed, self.own.key_value.T, f"{self.name}.self.key_value")
        return self._split_heads(projected, count, 2 * self.heads)

    def constant_key_value(self, content: Tensor) -> Tensor:
        """Keys and values of content known at export: float64 `(..., E)` to `(..., 2H, D)`."""
        projected = layer_norm(content, self.layer.norm_c) @ self.own.key_value
        return projected.reshape(*content.shape[:-1], 2 * self.heads, self.width)

    def attending_to_one(self, content: Tensor) -> Tensor:
        """What any query gets from a content of one known token, float64 `(E,)`: the softmax over one score is 1."""
        value = (layer_norm(content, self.layer.norm_c) @ self.own.key_value)[self.embed_dim :]
        return value @ self.own.out + self.own.out_bias

    def stream(self, x: str | Tensor, query: str, key_value: str, count: int, mask: str | None = None) -> str:
        """One stream through the layer.

        Args:
            x: The residual stream of `count` positions, or float64 `(L, E)` where it is known at export.
            query: Float `(B, H, L, D)`.
            key_value: Float `(B, 2H, n, D)`.
            count: L.
            mask: Float, broadcastable to `(B, H, L, n)`, added to the scores.

        Returns:
            The stream after the layer.
        """
        mixed = self._attend_to_content(query, key_value, mask)
        return self.rest(self._add_output(x, mixed, self.own, count, "self"), count)

    def stream_from(self, start: str, query: str, key_value: str) -> str:
        """The stream of one position whose residual is known: `start` is its row of `start_table`, float `(E,)`."""
        output = self._project_output(self._attend_to_content(query, key_value), self.own, 1, "self")
        return self.rest(self.g.add(output, start), 1)

    def rest(self, x: str | Tensor, count: int) -> str:
        """What follows the self-attention: attend to the memory, feed forward. `x` as for `stream`."""
        g, layer, name = self.g, self.layer, self.name
        if isinstance(x, Tensor):
            query = g.constant(self._known_query(x, layer.norm1, self.cross)[None], f"{name}.cross.queries")
        else:
            normed = g.layer_norm(x, layer.norm1, f"{name}.norm1")
            query = self._project_query(normed, self.cross, count, "cross")
        mixed = self._attend(query, self.memory_keys, self.memory_values)
        x = self._add_output(x, mixed, self.cross, count, "cross")
        normed = g.layer_norm(x, layer.norm2, f"{name}.norm2")
        hidden = g.gelu(g.linear(normed, layer.linear1.weight, layer.linear1.bias, f"{name}.linear1"))
        return g.add(x, g.linear(hidden, layer.linear2.weight, layer.linear2.bias, f"{name}.linear2"))

    def _known_query(self, x: Tensor, norm: torch.nn.LayerNorm, weights: AttentionWeights) -> Tensor:
        """Float64 `(L, E)`, not normalised, to `(H, L, D)`."""
        projected: Tensor = layer_norm(x, norm) @ weights.query + weights.query_bias
        return projected.view(len(x), self.heads, self.width).transpose(0, 1)

    def _project_query(self, normed: str, weights: AttentionWeights, count: int, which: str) -> str:
        name = f"{self.name}.{which}.query"
        projected = self.g.linear(normed, weights.query.T, weights.query_bias, name)
        return self._split_heads(projected, count, self.heads)

    def _attend_to_content(self, query: str, key_value: str, mask: str | None = None) -> str:
        keys, values = self.g.split(key_value, 2, 1)
        return self._attend(query, self.g.transpose(keys, (0, 1, 3, 2)), values, mask)

    def _attend(self, query: str, keys: str, values: str, mask: str | None = None) -> str:
        scores = self.g.matmul(query, keys)
        if mask is not None:
            scores = self.g.add(scores, mask)
        return self.g.matmul(self.g.softmax(scores), values)

    def _add_output(self, x: str | Tensor, mixed: str, weights: AttentionWeights, count: int, which: str) -> str:
        """`x` and the output projection of what the heads gave, `(B, H, L, D)`."""
        output = self._project_output(mixed, weights, count, which)
        if isinstance(x, Tensor):
            # One addition less: a known stream is a bias.
            bias = weights.out_bias + (x[0] if count == 1 else x)
            return self.g.add(output, self.g.constant(bias, f"{self.name}.{which}.out.bias"))
        return self.g.add(x, self.g.add(output, self.g.constant(weights.out_bias, f"{self.name}.{which}.out.bias")))

    def _project_output(self, mixed: str, weights: AttentionWeights, count: int, which: str) -> str:
        """The output projection of what the heads gave, `(B, H, L, D)`, without its bias."""
        if count > 1:
            mixed = self.g.transpose(mixed, (0, 2, 1, 3))
        flat = count == 1 and self.g.flat_rows
        merged = self.g.reshape(mixed, (0, self.embed_dim) if flat else (0, count, self.embed_dim))
        return self.g.product(merged, weights.out.T, f"{self.name}.{which}.out")

    def _split_heads(self, x: str, count: int, heads: int) -> str:
        # One position needs no transposition.
        if count == 1:
            return self.g.reshape(x, (0, heads, 1, self.width))
        return self.g.transpose(self.g.reshape(x, (0, count, heads, self.width)), (0, 2, 1, 3))


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """`norm(x)` in float64."""
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
