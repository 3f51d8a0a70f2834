"""Connectionist temporal classification: each column is a character or the blank; equal neighbours are one character.

Id 0, which ends texts in other recognisers, is the blank; ids 1..N are the charset's characters. There are no others.

Shapes: B texts, T columns, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model.recognisers.interface import Network, Step, Training
from model.recognisers.parts.tokenizer import CharacterIds

BLANK: Final = 0


class CtcTokenizer(CharacterIds):
    """Text to ids, and columns to text."""

    def __len__(self) -> int:
        """Number of ids: the charset and the blank."""
        return len(self.charset) + 1

    def encode(self, texts: Sequence[str], device: torch.device | None = None) -> Tensor:
        """The ids of texts, filled up with blanks to the longest.

        Returns:
            int64 `(B, longest text)`.

        Raises:
            UnknownCharacterError: A character is not in the charset.
        """
        rows = [self.ids(text) for text in texts]
        width = max(map(len, rows))
        padded = [row + [BLANK] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=device)

    def decode(self, probabilities: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading of the columns' probabilities.

        Args:
            probabilities: Float `(B, T, C)`, softmax over the last axis.

        Returns:
            The texts, and for each the probability of every character, then that of all blanks (see `collapse`): one value more
            than the text has characters. Their product, the text's confidence, is the product over all columns.
        """
        ids, confidences = collapse(probabilities)
        lengths = (ids != BLANK).sum(-1).tolist()
        texts = ["".join(self.charset[i - 1] for i in row[:length]) for row, length in zip(ids.tolist(), lengths, strict=True)]
        return texts, [row[: length + 1] for row, length in zip(confidences, lengths, strict=True)]


def collapse(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The best class of each column, equal neighbours merged and blanks taken out.

    Args:
        probabilities: Float `(B, T, C)`, softmax over the last axis.

    Returns:
        Ids, int64 `(B, T + 1)`, 0 after the last character; and float `(B, T + 1)`: for each character the product of its
        columns' probabilities, then the product of those of all blanks (1 if there are none), then ones.
    """
    best, kinds = probabilities.max(-1)
    blank = kinds == BLANK
    begins = ~blank & (kinds != F.pad(kinds, (1, 0))[:, :-1])
    characters = begins.cumsum(-1)
    places = torch.where(blank, characters[:, -1:], characters - 1)
    rows = len(kinds), kinds.shape[1] + 1
    ids = kinds.new_zeros(rows).scatter(1, places, kinds)
    return ids, best.new_zeros(rows).scatter_add(1, places, best.log()).exp()


def ctc_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """The negative log likelihood of each text by its length, summed over all ways to spread it over the columns.

    Args:
        logits: Float `(B, T, C)`.
        ids: int64 `(B, L)`, each text filled up with blanks. A text that does not fit the columns (it needs one for each
            character, and one between equal neighbours) counts as 0.

    Returns:
        The mean over the texts, a scalar.
    """
    columns = logits.float().log_softmax(-1).transpose(0, 1)
    lengths = (ids != BLANK).sum(1)
    spans = torch.full_like(lengths, len(columns))
    return F.ctc_loss(columns, ids, spans, lengths, blank=BLANK, zero_infinity=True)


class CtcTraining(Training):
    """Training by `ctc_loss`, for networks whose logits are those of columns."""

    def __init__(self, network: Network) -> None:
        """Train `network`, without heads."""
        super().__init__(network)
        self.tokenizer = CtcTokenizer(network.config.charset_train)

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over the texts. All processes have equally many, so the mean of their losses is that of the joined batch."""
        loss = ctc_loss(self.network(images), self.tokenizer.encode(labels, images.device))
        return loss, {"loss": loss}
