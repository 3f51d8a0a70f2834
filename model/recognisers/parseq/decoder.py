"""PARSeq's decoder: position queries attend to the text so far (content) and to the image (memory).

From "Scene Text Recognition with Permuted Autoregressive Sequence Models" (Bautista and Atienza, ECCV 2022): a pre-norm
transformer decoder layer with two streams. The query stream gives the answers; the content stream is updated between layers
only, so with one layer the content's keys and values depend on the tokens alone and can be computed once.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.parts.attention import KeyValue, KeyValueAttention


class DecoderLayer(nn.Module):
    """One two-stream layer."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = KeyValueAttention(embed_dim, num_heads, dropout)
        self.cross_attn = KeyValueAttention(embed_dim, num_heads, dropout)
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.norm_q = nn.LayerNorm(embed_dim)
        self.norm_c = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def stream(self, x: Tensor, normed: Tensor, content: KeyValue, memory: KeyValue, blocked: Tensor | None) -> Tensor:
        """One stream: attend to the content, attend to the memory, feed forward.

        Args:
            x: Float `(B or 1, L, E)`, the residual stream.
            normed: `x` normalised, in the same shape.
            content: Keys and values of the normalised content.
            memory: Keys and values of the encoder's output.
            blocked: Bool, broadcastable to `(B, heads, L, S)`.
        """
        x = x + self.dropout(self.self_attn.attend(normed, content, blocked))
        x = x + self.dropout(self.cross_attn.attend(self.norm1(x), memory))
        hidden = self.dropout(F.gelu(self.linear1(self.norm2(x))))
        x = x + self.dropout(self.linear2(hidden))
        return x


class Decoder(nn.Module):
    """A stack of two-stream layers and a final norm."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(embed_dim, num_heads, hidden_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self,
        query: Tensor,
        content: Tensor,
        memory: list[KeyValue],
        query_blocked: Tensor | None = None,
        content_blocked: Tensor | None = None,
    ) -> Tensor:
        """Decode the position queries.

        Args:
            query: Float `(B or 1, L, E)`, position queries.
            content: Float `(B, S, E)`, embedded tokens.
            memory: For each layer the keys and values of the encoder's output, from `project_memory`.
            query_blocked: Bool, broadcastable to `(B, heads, L, S)`: content that a query must not see.
            content_blocked: Bool, broadcastable to `(B, heads, S, S)`: the same for the content (used between layers only).

        Returns:
            float `(B, L, E)`.
        """
        for depth, layer in enumerate(self.typed_layers()):
            normed = layer.norm_c(content)
            content_kv = layer.self_attn.project(normed)
            query = layer.stream(query, layer.norm_q(query), content_kv, memory[depth], query_blocked)
            if depth + 1 < len(self.layers):
                content = layer.stream(content, normed, content_kv, memory[depth], content_blocked)
        out: Tensor = self.norm(query)
        return out

    def project_memory(self, memory: Tensor) -> list[KeyValue]:
        """Keys and values of `memory`, float `(B, N, E)`, for every layer."""
        return [layer.cross_attn.project(memory) for layer in self.typed_layers()]

    def typed_layers(self) -> list[DecoderLayer]:
        """The layers with their type, which `ModuleList` does not keep."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]
