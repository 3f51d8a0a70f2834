"""What ABINet's vision and language parts are both written with.

Shapes: B batch, L queries, n keys, E width, H heads, D = E / H.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from export.graphs.builder import GraphBuilder
from export.graphs.parts.attention import AttentionWeights
from model.recognisers.abinet.layers import FeedForward


def attend(g: GraphBuilder, scores: str, value: str, weights: AttentionWeights, count: int, name: str) -> str:
    """One attention with its output projection, from its scores on.

    Args:
        g: Where to.
        scores: Float `(B, H, L, n)`, masked.
        value: Float `(B or 1, H, n, D)`.
        weights: Of the output.
        count: L.
        name: Of the output projection.

    Returns:
        Float `(B, L, E)`.
    """
    mixed = g.matmul(g.softmax(scores), value)
    merged = g.reshape(g.transpose(mixed, (0, 2, 1, 3)), (0, count, len(weights.out_bias)))
    return g.linear(merged, weights.out.T, weights.out_bias, name)


def feed_forward(g: GraphBuilder, layer: FeedForward, x: str, name: str) -> str:
    """What is to be added to `x`, float `(B, L, E)`."""
    hidden = g.linear(x, layer.linear1.weight, layer.linear1.bias, f"{name}.linear1")
    hidden = g.relu(hidden) if layer.activation is F.relu else g.gelu(hidden)
    return g.linear(hidden, layer.linear2.weight, layer.linear2.bias, f"{name}.linear2")


def known(linear: nn.Linear, x: Tensor) -> Tensor:
    """`linear(x)` in float64, of what depends on no image."""
    assert linear.bias is not None
    return x.detach().double() @ linear.weight.detach().double().T + linear.bias.detach().double()
