"""Weights made from names: `fill(state, seed, options)` gives every parameter of a golden model, exactly, on any machine.

Every value comes from splitmix64 of the parameter's name (CRC-32), the seed and the flat index. Which mean and scale a
parameter gets follows from its name and shape alone; the first rule that fits wins.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ROOT_3 = 3.0**0.5
"""Uniform values in [-1, 1) times this have unit variance."""


def uniform(key: str, count: int, seed: int) -> Array:
    """`count` float64 values in [-1, 1), of 24 bits each."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(zlib.crc32(key.encode())) * np.uint64(0xD1342543DE82EF95)
        z += np.uint64(seed) * np.uint64(0x2545F4914F6CDD1D)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0


def value(key: str, old: Array, seed: int, options: Mapping[str, Any]) -> Array:
    """The values of one parameter; of `old` those are kept that follow from the architecture."""
    shape = old.shape
    last = key.rsplit(".", 1)[-1]
    if last in ("num_batches_tracked", "pe", "inv_delta_C", "P_hat"):
        return old
    noise = uniform(key, int(np.prod(shape)), seed).reshape(shape)
    head = key.startswith(options["head"])
    if last == "running_mean":
        return 0.1 * noise
    if last == "running_var":
        return 1.0 + 0.5 * noise
    if "localization_fc2" in key:
        return old + (0.05 if last == "bias" else 0.02 * ROOT_3) * noise
    if last == "pos_queries":
        return options["pos_queries"] * ROOT_3 * noise
    if last in ("pos_embed", "cls_token"):
        return 0.5 * ROOT_3 * noise
    if "embedding" in key and last == "weight":
        return ROOT_3 * noise / np.sqrt(shape[1]) if "text_embed" in key else ROOT_3 * noise
    # Recurrent layers have something behind it.
    if last.startswith("bias") or last.endswith("bias"):
        bias = 0.1 * noise
        if head and last == "bias":
            bias[options["eos"]] += options["eos_bias"]
        return bias
    if len(shape) == 1:
        return 1.0 + 0.2 * noise
    gain = options["head_gain"] if head else 1.4 if len(shape) == 4 else options["gain"]
    return gain * ROOT_3 * noise / np.sqrt(np.prod(shape[1:]))


def fill(state: Mapping[str, Array], seed: int, options: Mapping[str, Any]) -> dict[str, Array]:
    """Values for every entry of `state`, the weights of a fresh network."""
    return {key: np.asarray(value(key, old, seed, options), old.dtype) for key, old in state.items()}
