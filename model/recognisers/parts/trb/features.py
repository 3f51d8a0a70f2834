"""The residual network of TRBA and TRBC, which makes columns of an image.

"Focusing Attention: Towards Accurate Text Recognition in Natural Images", Cheng et al., ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from model.recognisers.parts.trb.config import NARROWING

ORDER: Final = (
    *("conv0_1", "bn0_1", "relu", "conv0_2", "bn0_2", "relu"),
    *("maxpool1", "layer1", "conv1", "bn1", "relu"),
    *("maxpool2", "layer2", "conv2", "bn2", "relu"),
    *("maxpool3", "layer3", "conv3", "bn3", "relu"),
    *("layer4", "conv4_1", "bn4_1", "relu", "conv4_2", "bn4_2", "relu"),
)
"""Names of the layers in which an image goes through them."""


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if width != channels:
            self.downsample = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, width, H, W)` to `(B, channels, H, W)`."""
        around = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        answer: Tensor = self.relu(self.bn2(self.conv2(inner)) + around)
        return answer


class ResNet(nn.Module):
    """Images to columns."""

    def __init__(self, channels: int) -> None:
        """Build it for `channels` of its last layer."""
        super().__init__()
        first, second, quarter, half = channels // NARROWING, channels // 8, channels // 4, channels // 2
        self.relu = nn.ReLU(inplace=True)
        self.conv0_1, self.bn0_1 = _convolution(3, first)
        self.conv0_2, self.bn0_2 = _convolution(first, second)
        self.maxpool1 = nn.MaxPool2d(2)
        self.layer1 = _blocks(second, quarter, 1)
        self.conv1, self.bn1 = _convolution(quarter, quarter)
        self.maxpool2 = nn.MaxPool2d(2)
        self.layer2 = _blocks(quarter, half, 2)
        self.conv2, self.bn2 = _convolution(half, half)
        # The height alone is halved; the padding makes one column more.
        self.maxpool3 = nn.MaxPool2d(2, (2, 1), (0, 1))
        self.layer3 = _blocks(half, channels, 5)
        self.conv3, self.bn3 = _convolution(channels, channels)
        self.layer4 = _blocks(channels, channels, 3)
        self.conv4_1 = nn.Conv2d(channels, channels, 2, (2, 1), (0, 1), bias=False)
        self.bn4_1 = nn.BatchNorm2d(channels)
        self.conv4_2 = nn.Conv2d(channels, channels, 2, bias=False)
        self.bn4_2 = nn.BatchNorm2d(channels)

    def in_order(self) -> Sequence[nn.Module]:
        """The layers in which an image goes through them; those of blocks are sequences of `ResidualBlock`."""
        return [getattr(self, name) for name in ORDER]

    def forward(self, images: Tensor) -> Tensor:
        """Float `(B, 3, H, W)` to `(B, channels, H / 16 - 1, W / 4 + 1)`."""
        x = images
        for layer in self.in_order():
            x = layer(x)
        return x


class FeatureExtraction(nn.Module):
    """The network under the name that state dicts have for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ConvNet = ResNet(channels)

    def forward(self, images: Tensor) -> Tensor:
        """As `ResNet`."""
        features: Tensor = self.ConvNet(images)
        return features


def _convolution(width: int, channels: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)


def _blocks(width: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels if index else width, channels) for index in range(count)))
