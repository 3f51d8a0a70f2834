"""ABINet's language part, which spells, and the alignment of what it spells with what was seen.

Shapes: B batch, S steps, C classes, E width.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.abinet.layers import DecoderLayer, SineTable, Stack

MIN_LENGTH: Final = 2
"""Of a text with its end, as far as the language part is told: of one alone, no step would see any other."""


def text_lengths(logits: Tensor) -> Tensor:
    """Characters and end of the best text of each row: float `(B, S, C)` to int64 `(B,)`, S where there is no end."""
    before_end = (logits.argmax(-1) == 0).cumsum(-1) == 0
    return (before_end.sum(-1) + 1).clamp(max=logits.shape[1])


class Language(nn.Module):
    """Names each character from all the others: a cloze test of the whole text at once, which sees no image."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.detach = config.l_detach
        self.proj = nn.Linear(config.classes, config.d_model, bias=False)
        self.token_encoder = SineTable(config.steps, config.d_model, config.dropout)
        self.pos_encoder = SineTable(config.steps, config.d_model)
        self.model = Stack([DecoderLayer(config) for _ in range(config.l_num_layers)])
        self.cls = nn.Linear(config.d_model, config.classes)

    def forward(self, probabilities: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Spell.

        Args:
            probabilities: Float `(B, S, C)`, of the characters as they were read.
            lengths: int64 `(B,)`, characters and end of each text; what is behind is not looked at.

        Returns:
            Features, float `(B, S, E)`, and logits, float `(B, S, C)`.
        """
        if self.detach:
            probabilities = probabilities.detach()
        memory = self.token_encoder(self.proj(probabilities))
        places = torch.arange(probabilities.shape[1], device=lengths.device)
        padding = (places >= lengths.clamp(min=MIN_LENGTH)[:, None])[:, None, None]
        itself = places == places[:, None]
        features = self.model(self.pos_encoder.rows, memory, padding, padding | itself)
        return features, self.cls(features)


class Alignment(nn.Module):
    """Weighs what was spelt against what was seen, number by number."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.w_att = nn.Linear(2 * config.d_model, config.d_model)
        self.cls = nn.Linear(config.d_model, config.classes)

    def forward(self, language: Tensor, vision: Tensor) -> Tensor:
        """Features of both, float `(B, S, E)`, to logits, float `(B, S, C)`."""
        seen = torch.sigmoid(self.w_att(torch.cat([language, vision], -1)))
        logits: Tensor = self.cls(seen * vision + (1 - seen) * language)
        return logits
