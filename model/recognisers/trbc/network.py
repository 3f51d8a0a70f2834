"""TRBC: each column of a rectified image names a character or none. Shapes: B batch, T columns, C classes, the blank first."""

from __future__ import annotations

from torch import Tensor, nn

from model.recognisers.parts.ctc import CtcTokenizer
from model.recognisers.parts.trb.network import TRBNetwork
from model.recognisers.trbc.config import TRBCConfig


class TRBC(TRBNetwork):
    """Images to columns of classes."""

    def __init__(self, config: TRBCConfig) -> None:
        super().__init__(config)
        self.tokenizer = CtcTokenizer(config.charset_train)
        self.Prediction = nn.Linear(config.hidden_size, len(self.tokenizer))
        self.initialise()

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            max_length: Of no meaning here: there are always as many columns.

        Returns:
            Logits, float `(B, T, C)`.
        """
        logits: Tensor = self.Prediction(self.columns(images))
        return logits

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading of the columns (see `CtcTokenizer.decode`)."""
        return self.tokenizer.decode(logits.softmax(-1))
