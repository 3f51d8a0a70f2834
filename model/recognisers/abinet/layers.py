"""What ABINet's vision and language parts are both made of: tables of positions, and post-norm transformer layers.

Shapes: B batch, L positions, S steps, E width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.parts.attention import KeyValueAttention

BASE: Final = 10000.0
"""Of the longest wave."""


class SineTable(nn.Module):
    """Positions as sines and cosines ("Attention Is All You Need", Vaswani et al., 2017), sines at even places."""

    pe: Tensor

    def __init__(self, length: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(BASE) / width))
        angles = torch.arange(length)[:, None] * rates
        # The axis in the middle is a batch's, which comes second in the released weights.
        self.register_buffer("pe", torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, None])

    @property
    def rows(self) -> Tensor:
        """Float `(1, L, E)`."""
        return self.pe.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions, float `(B, L, E)`."""
        added: Tensor = self.dropout(x + self.rows)
        return added


class FeedForward(nn.Module):
    """Two linear layers, under the names that PyTorch's transformers have for them."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.d_model, config.d_inner)
        self.linear2 = nn.Linear(config.d_inner, config.d_model)
        self.activation: Callable[[Tensor], Tensor] = F.relu if config.activation == "relu" else F.gelu
        self.dropout = nn.Dropout(config.dropout)

    def feed(self, x: Tensor) -> Tensor:
        """Float `(B, L, E)` to the same shape; what is to be added to it."""
        fed: Tensor = self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return fed


class EncoderLayer(FeedForward):
    """Attends to itself and feeds forward, with a norm after each."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__(config)
        self.self_attn = KeyValueAttention(config.d_model, config.nhead, config.dropout)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, L, E)` to the same shape."""
        x = self.norm1(x + self.dropout(self.self_attn.attend(x, self.self_attn.project(x))))
        encoded: Tensor = self.norm2(x + self.feed(x))
        return encoded


class DecoderLayer(FeedForward):
    """Queries attend to themselves, if so built, and to the memory, and feed forward, with a norm after each."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__(config)
        self.has_self_attn = config.l_use_self_attn
        if self.has_self_attn:
            self.self_attn = KeyValueAttention(config.d_model, config.nhead, config.dropout)
            self.norm1 = nn.LayerNorm(config.d_model)
        self.multihead_attn = KeyValueAttention(config.d_model, config.nhead, config.dropout)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.norm3 = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor, blocked: Tensor) -> Tensor:
        """Answer the queries.

        Args:
            x: Float `(B or 1, S, E)`.
            memory: Float `(B, S, E)`.
            padding: Bool `(B, 1, 1, S)`, true where queries must not look among themselves.
            blocked: Bool `(B, 1, S, S)`, true where they must not look in the memory.

        Returns:
            Float `(B, S, E)`.
        """
        if self.has_self_attn:
            # In the first layer the queries of all texts are the same, but each text hides others.
            x = x.expand(len(memory), -1, -1)
            x = self.norm1(x + self.dropout(self.self_attn.attend(x, self.self_attn.project(x), padding)))
        x = self.norm2(x + self.dropout(self.multihead_attn.attend(x, self.multihead_attn.project(memory), blocked)))
        answered: Tensor = self.norm3(x + self.feed(x))
        return answered


class Stack(nn.Module):
    """Layers one after another, under the name that PyTorch's transformers have for them."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Float `(B, L, E)` to the same shape; all layers see the others."""
        for layer in self.layers:
            x = layer(x, *others)
        return x
