"""How TRBA learns: to name every character after the true ones before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from model.recognisers.interface import Step, Training, decay_groups
from model.recognisers.parts.token_loss import token_loss
from model.recognisers.trba.network import TRBA

EMBEDDINGS: Final = ("char_embeddings",)
"""In names of what does not decay, besides vectors."""


class TRBATraining(Training):
    """Cross-entropy of every character and of the end."""

    network: TRBA

    def compile(self) -> None:
        """Compile the residual network, where the time goes; the decoder has another number of steps in every batch."""
        self.network.FeatureExtraction.compile(dynamic=False)

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; vectors and the embedding do not."""
        return decay_groups(self.parameters(), weight_decay, EMBEDDINGS)

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over the tokens of all texts, of all processes together."""
        tokenizer = self.network.tokenizer
        targets = tokenizer.encode(labels, images.device)
        given, wanted = targets[:, :-1], targets[:, 1:]
        logits = self.network.Prediction.follow(self.network.columns(images), given)
        loss = token_loss(logits, wanted, tokenizer.pad_id, step.shard)
        return loss, {"loss": loss}
