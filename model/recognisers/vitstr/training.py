"""How ViTSTR learns: each step names its character, or the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from model.recognisers.interface import Step, Training, decay_groups
from model.recognisers.parts.token_loss import token_loss
from model.recognisers.vitstr.network import ViTSTR

WITHOUT_DECAY: Final = ("pos_embed", "cls_token")
"""Besides vectors."""


class ViTSTRTraining(Training):
    """The cross-entropy of all steps up to the end of the longest label."""

    network: ViTSTR

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices decay; vectors, positions and the class token do not."""
        return decay_groups(self.parameters(), weight_decay, WITHOUT_DECAY)

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over all characters and ends of the batch."""
        tokenizer = self.network.tokenizer
        targets = tokenizer.encode(labels, images.device)[:, 1:]
        # All steps: a number of them that changes with the batch would be compiled anew each time.
        logits = self.network(images)[:, : targets.shape[1]]
        loss = token_loss(logits, targets, tokenizer.pad_id, step.shard)
        return loss, {"loss": loss}
