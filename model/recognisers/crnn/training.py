"""How CRNN learns: by the loss of its columns."""

from __future__ import annotations

from model.recognisers.crnn.network import CRNN
from model.recognisers.parts.ctc import CtcTraining


class CRNNTraining(CtcTraining):
    """The CTC loss."""

    network: CRNN

    def compile(self) -> None:
        """Compile the convolutions; the recurrent layers gain nothing."""
        self.network.cnn.compile(dynamic=False)
