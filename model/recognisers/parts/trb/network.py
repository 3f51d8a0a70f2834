"""From images to what TRBA and TRBC read: rectified, turned into columns, each column told of the others.

Shapes: B batch, T columns, h `hidden_size`.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.recognisers.interface import Network
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.normalise import channels_first
from model.recognisers.parts.recurrent import BidirectionalLSTM
from model.recognisers.parts.trb.config import TRBConfig
from model.recognisers.parts.trb.features import FeatureExtraction
from model.recognisers.parts.trb.rectification import Rectification


class TRBNetwork(Network):
    """All but the prediction, which the heirs add as `Prediction`; then they call `initialise`."""

    def __init__(self, config: TRBConfig) -> None:
        super().__init__()
        self.config: TRBConfig = config
        hidden, channels = config.hidden_size, config.output_channel
        self.Transformation = Rectification(config.img_size, config.num_fiducial)
        self.FeatureExtraction = FeatureExtraction(channels)
        self.SequenceModeling = nn.Sequential(
            BidirectionalLSTM(channels, hidden, hidden), BidirectionalLSTM(hidden, hidden, hidden)
        )

    def initialise(self) -> None:
        """Draw the weights as the reference does."""
        self.apply(initialise)
        self.Transformation.LocalizationNetwork.begin()

    def columns(self, images: Tensor) -> Tensor:
        """Images, float `(B, 3, H, W)` in [-1, 1], to columns, float `(B, T, h)`."""
        features = self.FeatureExtraction(self.Transformation(channels_first(images)))
        columns: Tensor = self.SequenceModeling(features.mean(2).transpose(1, 2))
        return columns
