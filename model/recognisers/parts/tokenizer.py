"""Text to token ids and back. Id 0 ends a text, ids 1..N are the charset's characters, N+1 begins, N+2 pads.

This numbering is the one of the released PARSeq weights (baudm/parseq): the end token comes first so that a network's head
can leave out the two ids (begin, pad) that it never predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class UnknownCharacterError(ValueError):
    """A label holds a character that the charset lacks."""


class CharacterIds:
    """The ids that all recognisers share: those of the characters."""

    def __init__(self, charset: str) -> None:
        """Build the id table of `charset`.

        Raises:
            ValueError: The charset is empty or holds a character twice.
        """
        if not charset or len(set(charset)) != len(charset):
            raise ValueError("a charset must be a string of distinct characters, not empty")
        self.charset = charset
        self._id_of = {character: index for index, character in enumerate(charset, start=1)}

    def ids(self, text: str) -> list[int]:
        """Ids of the characters of `text`, without special tokens.

        Raises:
            UnknownCharacterError: A character is not in the charset.
        """
        try:
            return [self._id_of[character] for character in text]
        except KeyError as error:
            raise UnknownCharacterError(
                f"{text!r} holds {error.args[0]!r}, which is not in the model's charset of {len(self.charset)} characters: "
                "filter the labels or choose a charset that has it"
            ) from None


class Tokenizer(CharacterIds):
    """Token ids for attention decoders."""

    def __init__(self, charset: str) -> None:
        super().__init__(charset)
        self.eos_id = 0
        self.bos_id = len(charset) + 1
        self.pad_id = len(charset) + 2

    def __len__(self) -> int:
        """Number of ids: the charset and the three special tokens."""
        return len(self.charset) + 3

    def encode(self, texts: Sequence[str], device: torch.device | None = None) -> Tensor:
        """Encode texts as `[begin, characters..., end, pad...]`.

        Returns:
            int64 `(len(texts), longest text + 2)`.

        Raises:
            UnknownCharacterError: A character is not in the charset.
        """
        rows = [[self.bos_id, *self.ids(text), self.eos_id] for text in texts]
        width = max(len(row) for row in rows)
        padded = [row + [self.pad_id] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=device)

    def decode(self, probabilities: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading of token probabilities.

        Args:
            probabilities: Float `(batch, steps, len(charset) + 1)`, softmax over the last axis.

        Returns:
            The texts, and for each the probability of every chosen token up to and including the end token (if there is one):
            one value more than the text has characters. A text's confidence is the product of these, as upstream defines it.
        """
        best, ids = probabilities.max(-1)
        texts, kept = [], []
        for row_ids, row_best in zip(ids.tolist(), best, strict=True):
            length = row_ids.index(self.eos_id) if self.eos_id in row_ids else len(row_ids)
            texts.append("".join(self.charset[token - 1] for token in row_ids[:length]))
            kept.append(row_best[: length + 1])
        return texts, kept
