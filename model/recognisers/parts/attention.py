"""Multi-head attention whose keys and values can be computed once and used many times."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each float `(batch, heads, positions, head width)`."""


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention.

    By PyTorch's fused kernel, except in bfloat16 with gradients on a CPU: there its backward pass took a third of a training
    step, and plain matrix products make the whole step 1.5 times as fast (docs/training.md).

    Args:
        query: Float `(B, heads, L, W)`.
        key: Float `(B, heads, S, W)`.
        value: Float `(B, heads, S, W)`.
        mask: Bool, broadcastable to `(B, heads, L, S)`, true where a query may look.
        dropout: Probability with which a weight is dropped.

    Returns:
        float `(B, heads, L, W)`.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1, torch.float32)
    return F.dropout(weights, dropout).to(value.dtype) @ value


class KeyValueAttention(nn.Module):
    """Multi-head attention with the parameters of `torch.nn.MultiheadAttention`.

    `project` and `attend` are separate, so that content to which many queries (steps, permutations) attend is projected once.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, content: Tensor) -> KeyValue:
        """Keys and values of `content`, float `(B, S, E)`."""
        embed_dim = content.shape[-1]
        both = F.linear(content, self.in_proj_weight[embed_dim:], self.in_proj_bias[embed_dim:])
        key, value = both.chunk(2, -1)
        return self._split(key), self._split(value)

    def attend(self, query: Tensor, key_value: KeyValue, blocked: Tensor | None = None) -> Tensor:
        """Attend from `query`, float `(B, L, E)`.

        Args:
            query: The queries; a batch of 1 is broadcast over the keys' batch.
            key_value: From `project`.
            blocked: Bool, broadcastable to `(B, heads, L, S)`, true where a query must not look.

        Returns:
            float `(B, L, E)`.
        """
        embed_dim = query.shape[-1]
        key, value = key_value
        q = self._split(F.linear(query, self.in_proj_weight[:embed_dim], self.in_proj_bias[:embed_dim]))
        q = q.expand(key.shape[0], -1, -1, -1)
        mixed = attention(q, key, value, None if blocked is None else ~blocked, self.dropout if self.training else 0.0)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        batch, positions, embed_dim = x.shape
        return x.view(batch, positions, self.num_heads, embed_dim // self.num_heads).transpose(1, 2)
