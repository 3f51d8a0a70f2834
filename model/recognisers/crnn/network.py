"""CRNN: convolutions make columns of an image, recurrent layers read them, and each column names a character or none.

"An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its Application to Scene Text Recognition",
Shi, Bai and Yao, TPAMI 2017. The state dict is key for key that of baudm/parseq's inner model (its `model.` apart); images
have three channels there too.

Shapes: B batch, T columns (a quarter of the width, and one more), C classes (the blank, then the characters).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import Tensor, nn

from model.recognisers.crnn.config import CHANNELS, CRNNConfig
from model.recognisers.interface import Network
from model.recognisers.parts.ctc import CtcTokenizer
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.normalise import channels_first
from model.recognisers.parts.recurrent import BidirectionalLSTM

NORMED: Final = (2, 4, 6)
"""Convolutions with batch norm, which have no bias."""
LAST: Final = len(CHANNELS) - 1
LEAK: Final = 0.2


class CRNN(Network):
    """Images to columns of classes."""

    def __init__(self, config: CRNNConfig) -> None:
        """Build it with random weights, drawn as the reference does."""
        super().__init__()
        self.config: CRNNConfig = config
        self.tokenizer = CtcTokenizer(config.charset_train)
        hidden = config.hidden_size
        self.cnn = _convolutions(config.leaky_relu)
        self.rnn = nn.Sequential(
            BidirectionalLSTM(CHANNELS[-1], hidden, hidden),
            BidirectionalLSTM(hidden, hidden, len(self.tokenizer)),
        )
        self.apply(initialise)

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, 32, W)` in [-1, 1].
            max_length: Of no meaning here: there are always as many columns.

        Returns:
            Logits, float `(B, T, C)`, the blank first.
        """
        features = self.cnn(channels_first(images))  # (B, 512, 1, T)
        logits: Tensor = self.rnn(features.squeeze(2).transpose(1, 2))
        return logits

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading of the columns (see `CtcTokenizer.decode`)."""
        return self.tokenizer.decode(logits.softmax(-1))


def _convolutions(leaky_relu: bool) -> nn.Sequential:
    """Float `(B, 3, 32, W)` to `(B, 512, 1, T)`, under the names of the reference."""
    layers = OrderedDict[str, nn.Module]()
    width = 3
    for index, channels in enumerate(CHANNELS):
        kernel, padding = (2, 0) if index == LAST else (3, 1)
        layers[f"conv{index}"] = nn.Conv2d(width, channels, kernel, padding=padding, bias=index not in NORMED)
        if index in NORMED:
            layers[f"batchnorm{index}"] = nn.BatchNorm2d(channels)
        layers[f"activation{index}"] = nn.LeakyReLU(LEAK, inplace=True) if leaky_relu else nn.ReLU(inplace=True)
        if index < 2:
            layers[f"pooling{index}"] = nn.MaxPool2d(2)
        elif index not in NORMED:
            # The height alone is halved; the padding makes the one column more.
            layers[f"pooling{index}"] = nn.MaxPool2d(2, (2, 1), (0, 1))
        width = channels
    return nn.Sequential(layers)
