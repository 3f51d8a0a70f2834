"""Multi-head attention as ONNX nodes.

Shapes: B batch, L queries, n keys, E width, H heads, D = E / H.
"""

from __future__ import annotations

from export.graphs.builder import GraphBuilder
from model.recognisers.parts.attention import KeyValueAttention


class AttentionWeights:
    """One attention's weights, float64, as factors of `x @ weight`, with what can be folded folded in.

    A softmax does not change when all its scores move together, so the keys need no bias. It sums to one, so the values' bias
    is a constant after the output projection.
    """

    def __init__(self, attention: KeyValueAttention) -> None:
        """Split and fold the weights of `attention`."""
        weight = attention.in_proj_weight.detach().double()
        bias = attention.in_proj_bias.detach().double()
        embed_dim = weight.shape[1]
        scale = (embed_dim // attention.num_heads) ** -0.5
        self.query = weight[:embed_dim].T * scale
        """`(E, E)`, with the scale of the scores."""
        self.query_bias = bias[:embed_dim] * scale
        self.key_value = weight[embed_dim:].T
        """`(E, 2E)`, keys first."""
        self.out = attention.out_proj.weight.detach().double().T
        self.out_bias = attention.out_proj.bias.detach().double() + bias[2 * embed_dim :] @ self.out


def split_heads(g: GraphBuilder, x: str, count: int, heads: int, width: int) -> str:
    """`(B, count, heads * width)` to `(B, heads, count, width)`."""
    return g.transpose(g.reshape(x, (0, count, heads, width)), (0, 2, 1, 3))
