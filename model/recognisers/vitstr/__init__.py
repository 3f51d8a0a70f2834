"""ViTSTR: "Vision Transformer for Fast and Efficient Scene Text Recognition", Atienza, ICDAR 2021."""

from __future__ import annotations

from typing import Final

from model.recognisers.registry import Adapting, Recogniser, released
from model.recognisers.vitstr.config import NAMED, ViTSTRConfig

RECOGNISER: Final = Recogniser(
    name="vitstr",
    class_name="ViTSTR",
    config=ViTSTRConfig,
    network="model.recognisers.vitstr.network:ViTSTR",
    training="model.recognisers.vitstr.training:ViTSTRTraining",
    named=NAMED,
    published={
        "vitstr": released("vitstr-26d0fcf4.pt"),
    },
    keys=frozenset({"cls_token", "head.weight"}),
    essential=frozenset({"embed_dim", "num_heads"}),
    # No tensor depends on how long texts are: the places of characters are patches.
    adapting=Adapting(by_character={"head.weight": 0, "head.bias": 0}),
    recipe="vitstr",
)
