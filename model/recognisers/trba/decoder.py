"""TRBA's decoder: at every step it attends to the columns, and names a character by what it found and what it named before.

Shapes: B batch, T columns, S steps, h width of columns and state, C classes (end, characters, begin, pad).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from model.recognisers.parts.tokenizer import Tokenizer
from model.recognisers.restriction import restricted

EMBEDDING: Final = 256
"""Width of the embedding of a token, whatever the other sizes are."""

State = tuple[Tensor, Tensor]
"""Of the recurrent cell, float `(B, h)` each: what it gives, and what it keeps."""


class AttentionCell(nn.Module):
    """One step. "Neural Machine Translation by Jointly Learning to Align and Translate", Bahdanau et al., ICLR 2015."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(hidden, hidden, bias=False)
        self.h2h = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.rnn = nn.LSTMCell(hidden + EMBEDDING, hidden)

    def forward(self, state: State, columns: Tensor, projected: Tensor, embedded: Tensor) -> State:
        """The state after a step.

        Args:
            state: Before it.
            columns: Float `(B, T, h)`.
            projected: What `i2h` makes of them, the same at every step.
            embedded: The token before, float `(B, EMBEDDING)`.
        """
        scores = self.score(torch.tanh(projected + self.h2h(state[0])[:, None]))  # (B, T, 1)
        context = (scores.softmax(1) * columns).sum(1)
        after: State = self.rnn(torch.cat([context, embedded], 1), state)
        return after


class AttentionDecoder(nn.Module):
    """All steps."""

    def __init__(self, hidden: int, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.attention_cell = AttentionCell(hidden)
        self.generator = nn.Linear(hidden, len(tokenizer))
        self.char_embeddings = nn.Embedding(len(tokenizer), EMBEDDING)
        self.begin = tokenizer.bos_id
        self.readable = readable_classes(tokenizer)

    def forward(self, columns: Tensor, steps: int, allowed: Tensor | None = None) -> Tensor:
        """Read, each step beginning with the best of the classes that can be read.

        Args:
            columns: Float `(B, T, h)`.
            steps: S, all of which are done.
            allowed: bool `(B or 1, characters)`: which may be read; None: all.

        Returns:
            Logits, float `(B, S, C)`.
        """
        projected, state = self._prepared(columns)
        token = torch.full((len(columns),), self.begin, device=columns.device)
        logits = []
        for _ in range(steps):
            state = self.attention_cell(state, columns, projected, self.char_embeddings(token))
            logits.append(restricted(self.generator(state[0])[:, None], allowed))
            token = logits[-1][:, 0, : self.readable].argmax(-1)
        return torch.cat(logits, 1)

    def follow(self, columns: Tensor, tokens: Tensor) -> Tensor:
        """The same where the token that each step begins with is known, int64 `(B, S)`."""
        projected, state = self._prepared(columns)
        given = []
        for embedded in self.char_embeddings(tokens).unbind(1):
            state = self.attention_cell(state, columns, projected, embedded)
            given.append(state[0])
        logits: Tensor = self.generator(torch.stack(given, 1))
        return logits

    def _prepared(self, columns: Tensor) -> tuple[Tensor, State]:
        zeros = columns.new_zeros(len(columns), columns.shape[2])
        return self.attention_cell.i2h(columns), (zeros, zeros)


def readable_classes(tokenizer: Tokenizer) -> int:
    """How many classes, the first ones, can be an answer: the end and the characters, but neither begin nor pad."""
    return tokenizer.bos_id
