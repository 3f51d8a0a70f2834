"""How TRBC learns: by the loss of its columns."""

from __future__ import annotations

from model.recognisers.parts.ctc import CtcTraining
from model.recognisers.trbc.network import TRBC


class TRBCTraining(CtcTraining):
    """The CTC loss."""

    network: TRBC

    def compile(self) -> None:
        """Compile the residual network, where the time goes; the recurrent layers gain nothing."""
        self.network.FeatureExtraction.compile(dynamic=False)
