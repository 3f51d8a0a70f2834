"""The image encoder: a vision transformer without class token, on plain patches or on a small residual network.

Parameter names and shapes are those of the released weights (a timm ViT); the residual stem is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parts.vit import NORM_EPS, EncoderBlock, PatchEmbed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inner)))


class ResidualStem(nn.Module):
    """Three strided stages: height / 8, width / 4. Four rows of 32 tokens for a 32x128 crop.

    Plain 4x8 patches learn slowly from few crops and give a 25-letter word fewer columns than letters; this gives 32 columns.
    ReLU, not GELU: on maps this large GELU's backward pass alone took 8 % of a training step, and ReLU fuses into convolutions.
    """

    def __init__(self, config: PARSeqConfig) -> None:
        super().__init__()
        widths = (3, 48, 96, config.embed_dim)
        strides = ((2, 2), (2, 2), (2, 1))
        stages = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            stages += [
                nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                ResidualBlock(after),
            ]
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 3, H, W)` to tokens `(B, rows * columns, E)`, row by row."""
        # The convolutions are about 10 % faster on a CPU in this layout.
        features: Tensor = self.stages(images.contiguous(memory_format=torch.channels_last))
        return features.flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """Images to memory."""

    def __init__(self, config: PARSeqConfig) -> None:
        super().__init__()
        rows, columns = config.grid
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns, config.embed_dim))
        self.patch_embed = (
            ResidualStem(config) if config.stem == "residual" else PatchEmbed(config.embed_dim, config.patch_size)
        )
        self.blocks = nn.ModuleList(
            EncoderBlock(config.embed_dim, config.enc_num_heads, config.enc_mlp_ratio) for _ in range(config.enc_depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float `(B, 3, H, W)`, to memory, float `(B, rows * columns, E)`."""
        x: Tensor = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x
