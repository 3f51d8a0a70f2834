"""ABINet's vision part: a residual network, transformer layers over its map, and an attention that finds the characters on it.

Shapes: B batch, N = 256 positions of the map (8 rows of 32), S steps, C classes, E `d_model`.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.recognisers.abinet.config import MAP, ABINetConfig
from model.recognisers.abinet.layers import EncoderLayer, SineTable, Stack
from model.recognisers.parts.normalise import channels_first

POSITIONS: Final = math.prod(MAP)
STAGES: Final = ((16, 3, 2), (8, 4, 1), (4, 6, 2), (2, 6, 1), (1, 3, 1))
"""Which part of E the channels are, blocks, and stride of each stage of the residual network."""
KEY_PART: Final = 8
"""Which part of E the channels inside the hourglass are."""
KEY_STRIDES: Final = ((1, 2), (2, 2), (2, 2), (2, 2))
"""Of the way down: 8x16, 4x8, 2x4, 1x2; the way up undoes them."""


class ResidualBlock(nn.Module):
    """A 1x1 and a 3x3 convolution with batch norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        # Of the first block of a stage, also where nothing changes in size.
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        added = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(added + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """45 convolutional layers: a quarter of the height and of the width, E channels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        width = features // STAGES[0][0]
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number, (part, blocks, stride) in enumerate(STAGES, start=1):
            channels = features // part
            first = ResidualBlock(width, channels, stride, first=True)
            others = [ResidualBlock(channels, channels, 1, first=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(first, *others))
            width = channels

    def stages(self) -> list[list[ResidualBlock]]:
        """The blocks of each stage."""
        return [list(getattr(self, f"layer{number}")) for number in range(1, len(STAGES) + 1)]

    def forward(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, 32, 128)`, to positions, float `(B, N, E)`, row by row."""
        # Pixels come channels last.
        x = F.relu(self.bn1(self.conv1(channels_first(images))))
        for blocks in self.stages():
            for block in blocks:
                x = block(x)
        return x.flatten(2).transpose(1, 2)


class TransformerBackbone(nn.Module):
    """The residual network, and transformer layers over all its positions."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.resnet = ResNet(config.d_model)
        self.pos_encoder = SineTable(POSITIONS, config.d_model, config.dropout)
        self.transformer = Stack([EncoderLayer(config) for _ in range(config.v_num_layers)])

    def forward(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, 32, 128)`, to positions, float `(B, N, E)`, row by row."""
        encoded: Tensor = self.transformer(self.pos_encoder(self.resnet(images)))
        return encoded


class PositionAttention(nn.Module):
    """Queries are the steps' numbers, keys what an hourglass of convolutions makes of the map, values the map itself."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        inner = config.d_model // KEY_PART
        inputs = (config.d_model, *[inner] * (len(KEY_STRIDES) - 1))
        outputs = (*inputs[:0:-1], config.d_model)
        self.k_encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, inner, 3, stride, padding=1), nn.BatchNorm2d(inner), nn.ReLU())
            for width, stride in zip(inputs, KEY_STRIDES, strict=True)
        )
        self.k_decoder = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=stride, mode="nearest"),
                nn.Conv2d(inner, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for width, stride in zip(outputs, KEY_STRIDES[::-1], strict=True)
        )
        self.pos_encoder = SineTable(config.steps, config.d_model)
        self.project = nn.Linear(config.d_model, config.d_model)

    def queries(self) -> Tensor:
        """Float `(1, S, E)`: they depend on no image."""
        projected: Tensor = self.project(self.pos_encoder.rows)
        return projected

    def forward(self, positions: Tensor) -> Tensor:
        """Positions, float `(B, N, E)`, to steps, float `(B, S, E)`."""
        key = channels_first(positions.transpose(1, 2).reshape(len(positions), -1, *MAP))
        maps = []
        for down in self.k_encoder:
            key = down(key)
            maps.append(key)
        for up, same_size in zip(self.k_decoder, maps[-2::-1], strict=False):
            key = up(key) + same_size
        key = self.k_decoder[-1](key)
        # Scaled first: half precision may not hold the scores else.
        scores = (self.queries() / math.sqrt(positions.shape[-1])) @ key.flatten(2)
        seen: Tensor = scores.softmax(-1) @ positions
        return seen


class AdditiveAttention(nn.Module):
    """Positions and the order of reading, an embedding of the steps, are added before they are scored.

    As in "Towards Accurate Scene Text Recognition with Semantic Reasoning Networks", Yu et al., CVPR 2020.
    """

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.f0_embedding = nn.Embedding(config.steps, config.d_model)
        self.w0 = nn.Linear(config.steps, POSITIONS)
        self.wv = nn.Linear(config.d_model, config.d_model)
        self.we = nn.Linear(config.d_model, config.steps)

    def order(self) -> Tensor:
        """What the steps add to each position, float `(N, E)`: it depends on no image."""
        mixed: Tensor = self.w0(self.f0_embedding.weight.T)
        return mixed.T

    def forward(self, positions: Tensor) -> Tensor:
        """Positions, float `(B, N, E)`, to steps, float `(B, S, E)`."""
        scores: Tensor = self.we(torch.tanh(self.order() + self.wv(positions)))
        seen: Tensor = scores.transpose(1, 2).softmax(-1) @ positions
        return seen


class Vision(nn.Module):
    """From pixels to what each step sees, and to a first reading."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.backbone = TransformerBackbone(config) if config.v_backbone == "transformer" else ResNet(config.d_model)
        self.attention = PositionAttention(config) if config.v_attention == "position" else AdditiveAttention(config)
        self.cls = nn.Linear(config.d_model, config.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images, float `(B, 3, 32, 128)`, to features, float `(B, S, E)`, and logits, float `(B, S, C)`."""
        features = self.attention(self.backbone(images))
        return features, self.cls(features)
