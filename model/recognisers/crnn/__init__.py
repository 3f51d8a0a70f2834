"""CRNN: "An End-to-End Trainable Neural Network for Image-based Sequence Recognition ...", Shi, Bai and Yao, TPAMI 2017."""

from __future__ import annotations

from typing import Final

from model.recognisers.crnn.config import NAMED, CRNNConfig
from model.recognisers.registry import Adapting, Recogniser, released

RECOGNISER: Final = Recogniser(
    name="crnn",
    class_name="CRNN",
    config=CRNNConfig,
    network="model.recognisers.crnn.network:CRNN",
    training="model.recognisers.crnn.training:CRNNTraining",
    named=NAMED,
    published={"crnn": released("crnn-679d0e31.pt")},
    keys=frozenset({"rnn.0.rnn.weight_ih_l0"}),
    essential=frozenset({"hidden_size", "leaky_relu"}),
    adapting=Adapting(by_character={"rnn.1.linear.weight": 0, "rnn.1.linear.bias": 0}),
    recipe="crnn",
)
