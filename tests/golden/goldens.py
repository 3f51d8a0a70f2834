"""Expected outputs of the reference implementation: the compact set beside this file, and the full set where it exists.

The compact set holds inputs, outputs and configurations. Weights are not stored: `recipe.fill` makes them from the names of the
parameters and a seed, exactly, on any machine.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.recognisers.parts.normalise import normalise
from model.recognisers.registry import default_recogniser, named_in
from tests.golden import recipe

COMPACT = Path(__file__).parent / "data"
FULL = Path(__file__).parents[3] / "shared" / "golden"
MODELS = ("parseq-a", "parseq-b", "parseq-dec2", "parseq-p16", "parseq-tiny-full", "parseq-full")
TOLERANCE = 1e-4


@functools.cache
def description(name: str) -> dict[str, Any]:
    """Configuration, recipe and expected values of a golden model."""
    values: dict[str, Any] = json.loads((COMPACT / f"{name}.json").read_text(encoding="utf-8"))
    return values


@functools.cache
def arrays(name: str) -> dict[str, NDArray[Any]]:
    """Inputs (`input_u8`) and logits of a golden model."""
    with np.load(COMPACT / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


@functools.cache
def network(name: str) -> Any:
    """The golden model, in evaluation mode; a network of the recogniser that its `cls` names."""
    about = description(name)
    entry = named_in(about) or default_recogniser()
    built = entry.build_network(entry.config.from_mapping(about["system_args"]))
    return fill_by_recipe(built, about["prefix"], about["recipe_seed"], about["recipe_opts"])


def fill_by_recipe(built: Any, prefix: str, seed: int, options: dict[str, Any]) -> Any:
    """Give a fresh network the weights of the recipe, in evaluation mode; `prefix` is before the names that it goes by."""
    state = {prefix + key: value.numpy() for key, value in built.state_dict().items()}
    filled = recipe.fill(state, seed, options)
    built.load_state_dict({key.removeprefix(prefix): torch.from_numpy(np.array(value)) for key, value in filled.items()})
    return built.eval()


def images(name: str) -> Tensor:
    """The golden input, normalised, float `(4, 3, H, W)`."""
    return normalise(torch.from_numpy(arrays(name)["input_u8"]))


def decode_options(key: str, batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """What a key such as `ar_r1_max7` or `nar_r0_single2` asks for: the images and the arguments of `PARSeq.forward`."""
    mode, refine, *rest = key.split("_")
    options: dict[str, Any] = {"decode_ar": mode == "ar", "refine_iters": int(refine[1:])}
    if rest and rest[0].startswith("max"):
        options["max_length"] = int(rest[0][3:])
    if rest and rest[0].startswith("single"):
        index = int(rest[0][6:])
        batch = batch[index : index + 1]
    return batch, options
