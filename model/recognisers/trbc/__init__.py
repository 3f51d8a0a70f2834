"""TRBC: TPS-ResNet-BiLSTM-CTC of "What Is Wrong With Scene Text Recognition Model Comparisons?", Baek et al., ICCV 2019."""

from __future__ import annotations

from typing import Final

from model.recognisers.registry import Adapting, Recogniser
from model.recognisers.trbc.config import NAMED, TRBCConfig

RECOGNISER: Final = Recogniser(
    name="trbc",
    class_name="TRBC",
    config=TRBCConfig,
    network="model.recognisers.trbc.network:TRBC",
    training="model.recognisers.trbc.training:TRBCTraining",
    named=NAMED,
    keys=frozenset({"Prediction.weight"}),
    essential=frozenset({"output_channel", "hidden_size"}),
    adapting=Adapting(by_character={"Prediction.weight": 0, "Prediction.bias": 0}),
    recipe="trbc",
)
