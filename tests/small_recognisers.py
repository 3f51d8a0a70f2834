"""Small networks of the recognisers beside PARSeq, and with made-up weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from artifact.text import Reading, text_of
from model.charsets import CHARSETS
from model.distributed import ALONE
from model.recognisers.crnn.config import CRNNConfig
from model.recognisers.interface import Config, Network, Step
from model.recognisers.registry import recogniser_of
from model.recognisers.trba.config import TRBAConfig
from model.recognisers.trbc.config import TRBCConfig
from tests.golden.goldens import fill_by_recipe

SIZES: Final[dict[str, Any]] = {"charset_train": CHARSETS["36"], "max_label_length": 7, "hidden_size": 24}
TRB: Final[dict[str, Any]] = {**SIZES, "img_size": (32, 64), "output_channel": 32, "num_fiducial": 6}
SMALL: Final[Mapping[str, Config]] = {
    "crnn": CRNNConfig(**SIZES, img_size=(32, 36)),
    "crnn-leaky": CRNNConfig(**SIZES, img_size=(32, 36), leaky_relu=True),
    "trba": TRBAConfig(**TRB),
    # What is higher has several rows of features, of which the mean is taken.
    "trba-high": TRBAConfig(**{**TRB, "img_size": (64, 40)}),
    "trbc": TRBCConfig(**TRB),
}
FIRST_STEP: Final = Step(number=0, of=1, batch=0, seed=0, shard=ALONE)
NOWHERE: Final = torch.empty(0, 0, 2)
"""Centres of glyphs, for losses that do not ask for them."""
HEADS: Final[Mapping[str, str]] = {"crnn": "rnn.1.linear", "trba": "Prediction.generator", "trbc": "Prediction."}


def made_up(config: Config, seed: int = 5, end_bias: float = 1.0) -> Any:
    """A network in eval mode, the same for the same arguments, whose decisions are seldom close.

    Args:
        config: Its sizes.
        seed: Of the weights.
        end_bias: Added to the logit of the end, or of the blank.
    """
    network: Network = recogniser_of(config).build_network(config)
    head = HEADS[config.RECOGNISER]
    gain = 2.0 if config.RECOGNISER == "trba" else 1.0
    options = {"head": head, "gain": gain, "head_gain": 6.0, "eos": 0, "eos_bias": end_bias}
    return fill_by_recipe(network, "", seed, options)


def text_of_row(row: tuple[Any, ...], charset: str) -> Reading:
    """What the token ids and confidences of one crop say."""
    ids, confidences, *_ = row
    return text_of(ids.tolist(), confidences.tolist(), charset)
