"""Parts of vision transformers, patches and blocks, with the names and shapes of timm and of the released weights."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.parts.attention import attention

NORM_EPS: Final = 1e-6
"""Epsilon of the layer norms in blocks and after them, as in timm's ViT; PyTorch's default is 1e-5."""


class PatchEmbed(nn.Module):
    """One convolution whose kernel is its stride: every patch becomes a token."""

    def __init__(self, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 3, H, W)` to tokens `(B, rows * columns, E)`, row by row."""
        features: Tensor = self.proj(images)
        return features.flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, E)` to the same shape."""
        batch, positions, embed_dim = x.shape
        qkv = self.qkv(x).view(batch, positions, 3, self.num_heads, embed_dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, E)` to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class EncoderBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.attn = SelfAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.mlp = Mlp(embed_dim, embed_dim * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, E)` to the same shape."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x
