"""A small ABINet with made-up weights, and crops that it reads."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.gate.crops import parity_crops
from model.charsets import CHARSETS
from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.abinet.network import ABINet
from model.recognisers.parts.normalise import normalise
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


def small_abinet(*, seed: int = 7, eos_bias: float = 4.0, gain: float = 1.5, **sizes: Any) -> ABINet:
    """A network in eval mode, the same for the same arguments.

    Args:
        seed: Of the weights.
        eos_bias: Added to the end's logit in the alignment: with a high one texts end early.
        gain: Of the layers: with a low one rounding matters less, and so does what is in the crop.
        sizes: Of the config, instead of `SIZES`.
    """
    # Made once: that takes ten times as long as to copy it.
    return copy.deepcopy(_made_up(seed, eos_bias, gain, tuple(sorted(sizes.items()))))


@functools.lru_cache(maxsize=32)
def _made_up(seed: int, eos_bias: float, gain: float, sizes: tuple[tuple[str, Any], ...]) -> ABINet:
    options = {"head": "alignment.cls", "gain": gain, "head_gain": 4.2, "eos": 0, "eos_bias": eos_bias}
    network: ABINet = fill_by_recipe(ABINet(ABINetConfig(**{**SIZES, **dict(sizes)})), "", seed, options)
    # Norms as they are after training: without them what the blocks add would grow, and rounding with it.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        # So that what is seen ends now and then.
        network.vision.cls.bias[0] += 2.5
        network.train().vision(normalise(torch.from_numpy(small_crops())))
    return network.eval()


@functools.cache
def small_crops(count: int = 16) -> NDArray[np.uint8]:
    """Blank ones, noise and words."""
    return np.stack([crop.pixels for crop in parity_crops((32, 128), CHARSETS["36"], 7)[:count]])
