"""PARSeq: "Scene Text Recognition with Permuted Autoregressive Sequence Models", Bautista and Atienza, ECCV 2022."""

from __future__ import annotations

from typing import Final

from model.recognisers.parseq.config import NAMED, PARSeqConfig
from model.recognisers.parseq.options import PARSeqOptions
from model.recognisers.registry import Adapting, Recogniser, released

RECOGNISER: Final = Recogniser(
    name="parseq",
    class_name="PARSeq",
    config=PARSeqConfig,
    network="model.recognisers.parseq.network:PARSeq",
    training="model.recognisers.parseq.training:PARSeqTraining",
    named=NAMED,
    published={
        "parseq-tiny": released("parseq_tiny-e7a21b54.pt"),
        "parseq": released("parseq-bb5792a6.pt"),
        "parseq-patch16-224": released("parseq_small_patch16_224-fcf06f5a.pt"),
    },
    keys=frozenset({"pos_queries"}),
    essential=frozenset({"embed_dim"}),
    adapting=Adapting(
        by_character={"head.weight": 0, "head.bias": 0, "text_embed.embedding.weight": 0},
        by_position={"pos_queries": 1},
    ),
    recipe="parseq",
    training_options=PARSeqOptions,
)
