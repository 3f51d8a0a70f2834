"""Recurrent layers over columns. B batch, T columns."""

from __future__ import annotations

from torch import Tensor, nn


class BidirectionalLSTM(nn.Module):
    """An LSTM that goes through the columns both ways, and a linear layer on what both have found."""

    def __init__(self, width: int, hidden: int, width_out: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, width_out)

    def forward(self, columns: Tensor) -> Tensor:
        """Float `(B, T, width)` to `(B, T, width_out)`."""
        # A copy of a network, such as an average of weights, has lost the layout that cuDNN wants. Elsewhere this does nothing.
        self.rnn.flatten_parameters()
        both, _ = self.rnn(columns)
        answer: Tensor = self.linear(both)
        return answer
