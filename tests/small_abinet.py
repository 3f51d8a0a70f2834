"""A small ABINet with made-up weights, and crops that it reads."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.gate.crops import parity_crops
from model.charsets import CHARSETS
from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.abinet.network import ABINet
from tests.golden.goldens import fill_by_recipe

SIZES: dict[str, Any] = {
    "charset_train": CHARSETS["36"],
    "max_label_length": 7,
    "d_model": 32,
    "nhead": 4,
    "d_inner": 48,
    "v_num_layers": 2,
    "l_num_layers": 2,
    "dropout": 0.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "position": {},
    "additive": {"v_attention": "attention"},
    "self-attention": {"l_use_self_attn": True, "iter_size": 2},
    "resnet-only": {"v_backbone": "resnet", "iter_size": 1},
    "gelu": {"activation": "gelu", "v_num_layers": 1, "l_num_layers": 1},
    "2-long": {"max_label_length": 2},
    "1-long": {"max_label_length": 1},
}


def small_abinet(*, seed: int = 5, eos_bias: float = 1.0, gain: float = 3.0, **sizes: Any) -> ABINet:
    """A network in eval mode.

    Args:
        seed: Of the weights.
        eos_bias: Added to the end's logit in the alignment: with a high one texts end early.
        gain: Of the layers: how far apart the readings of different crops are.
        sizes: Of the config, instead of `SIZES`.
    """
    options = {"head": "alignment.cls", "gain": gain, "head_gain": 6.0, "eos": 0, "eos_bias": eos_bias}
    network: ABINet = fill_by_recipe(ABINet(ABINetConfig(**{**SIZES, **sizes})), "", seed, options)
    return network


@functools.cache
def small_crops(count: int = 16) -> NDArray[np.uint8]:
    """Blank ones, noise and words."""
    return np.stack([crop.pixels for crop in parity_crops((32, 128), CHARSETS["36"], 7)[:count]])
