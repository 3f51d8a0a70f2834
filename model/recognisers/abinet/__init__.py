"""ABINet: "Read Like Humans: Autonomous, Bidirectional and Iterative Language Modeling for Scene Text Recognition", Fang et
al., CVPR 2021.
"""

from __future__ import annotations

from typing import Final

from model.recognisers.abinet.config import NAMED, ABINetConfig
from model.recognisers.abinet.options import ABINetOptions
from model.recognisers.registry import Adapting, Recogniser, released

RECOGNISER: Final = Recogniser(
    name="abinet",
    class_name="ABINet",
    config=ABINetConfig,
    network="model.recognisers.abinet.network:ABINet",
    training="model.recognisers.abinet.training:ABINetTraining",
    named=NAMED,
    published={
        "abinet": released("abinet-1d1e373e.pt"),
    },
    keys=frozenset({"alignment.w_att.weight"}),
    essential=frozenset({"v_attention", "v_num_layers", "l_num_layers"}),
    adapting=Adapting(
        by_character={
            "alignment.cls.weight": 0,
            "alignment.cls.bias": 0,
            "vision.cls.weight": 0,
            "vision.cls.bias": 0,
            "language.cls.weight": 0,
            "language.cls.bias": 0,
            "language.proj.weight": 1,
        },
        by_position={
            "language.token_encoder.pe": 0,
            "language.pos_encoder.pe": 0,
            # Of position attention.
            "vision.attention.pos_encoder.pe": 0,
            # Of additive attention.
            "vision.attention.f0_embedding.weight": 0,
            "vision.attention.w0.weight": 1,
            "vision.attention.we.weight": 0,
            "vision.attention.we.bias": 0,
        },
    ),
    recipe="abinet",
    training_options=ABINetOptions,
)
