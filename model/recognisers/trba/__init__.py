"""TRBA: TPS-ResNet-BiLSTM-Attn of "What Is Wrong With Scene Text Recognition Model Comparisons?", Baek et al., ICCV 2019."""

from __future__ import annotations

from typing import Final

from model.recognisers.registry import Adapting, Recogniser, released
from model.recognisers.trba.config import NAMED, TRBAConfig

RECOGNISER: Final = Recogniser(
    name="trba",
    class_name="TRBA",
    config=TRBAConfig,
    network="model.recognisers.trba.network:TRBA",
    training="model.recognisers.trba.training:TRBATraining",
    named=NAMED,
    published={"trba": released("trba-cfaed284.pt")},
    keys=frozenset({"Prediction.generator.weight"}),
    essential=frozenset({"output_channel", "hidden_size"}),
    adapting=Adapting(
        by_character={
            "Prediction.generator.weight": 0,
            "Prediction.generator.bias": 0,
            "Prediction.char_embeddings.weight": 0,
        }
    ),
    recipe="trba",
)
