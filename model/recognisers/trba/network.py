"""TRBA: reads a rectified image character by character.

As in the reference there are logits for 97 classes: the begin and the pad token can be predicted too, which trained weights
hardly ever do. The reference then writes `[B]` or `[P]` into the text. Here such a token is never the answer: what is read, and
what the next step begins with, is the best of the other 95. Probabilities are those of the softmax over all 97, so a confidence
tells of the doubt.

Shapes: B batch, T columns, S steps (`max_label_length` and the end), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from model.recognisers.parts.tokenizer import Tokenizer
from model.recognisers.parts.trb.network import TRBNetwork
from model.recognisers.trba.config import TRBAConfig
from model.recognisers.trba.decoder import AttentionDecoder


class TRBA(TRBNetwork):
    """Images to steps of classes."""

    def __init__(self, config: TRBAConfig) -> None:
        super().__init__(config)
        self.tokenizer = Tokenizer(config.charset_train)
        self.Prediction = AttentionDecoder(config.hidden_size, self.tokenizer)
        self.initialise()

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, H, W)` in [-1, 1].
            max_length: Read at most so many characters. All steps are done in any case.

        Returns:
            Logits, float `(B, S, C)`, those of the begin and the pad token last.
        """
        limit = self.config.max_label_length if max_length is None else min(max_length, self.config.max_label_length)
        logits: Tensor = self.Prediction(self.columns(images), limit + 1)
        return logits

    def passes(self, images: Tensor, allowed: Tensor | None = None) -> Sequence[Tensor]:
        """The logits of all steps."""
        return [self.Prediction(self.columns(images), self.config.max_label_length + 1, allowed)]

    def step_probabilities(self, logits: Tensor) -> Tensor:
        """Those of the classes that can be read, by all."""
        return logits.softmax(-1)[..., : self.Prediction.readable]

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading: texts, and the probabilities of their tokens, the end token's included."""
        return self.tokenizer.decode(self.step_probabilities(logits))

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The columns alone, and with their reading."""
        return {"columns": self.columns, **super().ways()}
