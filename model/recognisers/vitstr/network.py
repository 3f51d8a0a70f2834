"""ViTSTR: a vision transformer whose first patches, once they have seen all others, name the characters.

"Vision Transformer for Fast and Efficient Scene Text Recognition", Atienza, ICDAR 2021. The state dict is key for key that of
the released weights of baudm/parseq, without their prefix `model.`: a timm ViT with class token.

Shapes: B batch, N patches, T `max_label_length`, S steps (at most T + 1), C classes (charset + end), E `embed_dim`.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from model.recognisers.interface import Network
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.tokenizer import Tokenizer
from model.recognisers.parts.vit import NORM_EPS, EncoderBlock, PatchEmbed
from model.recognisers.vitstr.config import ViTSTRConfig

CLASS_TOKEN_SPREAD: Final = 1e-6
"""With which the class token begins (timm)."""


class ViTSTR(Network):
    """Encoder and head."""

    def __init__(self, config: ViTSTRConfig) -> None:
        super().__init__()
        self.config: ViTSTRConfig = config
        self.tokenizer = Tokenizer(config.charset_train)
        embed_dim = config.embed_dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + math.prod(config.grid), embed_dim))
        self.patch_embed = PatchEmbed(embed_dim, config.patch_size)
        self.blocks = nn.ModuleList(EncoderBlock(embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        # The begin and pad tokens are never predicted.
        self.head = nn.Linear(embed_dim, len(self.tokenizer) - 2)
        self._initialise()

    def _initialise(self) -> None:
        """As the reference does: the patches' convolution keeps PyTorch's default."""
        nn.init.normal_(self.cls_token, std=CLASS_TOKEN_SPREAD)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for part in (self.blocks, self.norm, self.head):
            part.apply(initialise)

    def encode(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, H, W)` in [-1, 1], to tokens, float `(B, 1 + N, E)`, the class token first, not yet normed."""
        patches = self.patch_embed(images)
        x: Tensor = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            max_length: Give the steps of so many characters and of their end, at most T + 1; without it all T + 1.

        Returns:
            Logits, float `(B, S, C)`. The class token is no step: it gives none.
        """
        longest = self.config.max_label_length
        steps = 1 + (longest if max_length is None else min(max_length, longest))
        logits: Tensor = self.head(self.norm(self.encode(images)[:, 1 : 1 + steps]))
        return logits

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading (see `Tokenizer.decode`): texts, and the probabilities of their tokens, the end token's included."""
        return self.tokenizer.decode(logits.softmax(-1))

    def step_probabilities(self, logits: Tensor) -> Tensor:
        """The softmax of the logits."""
        return logits.softmax(-1)
