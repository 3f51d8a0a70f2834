"""Checks that weights, the architecture that their file tells, and a network agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.errors import LONGEST_SHOWN, WeightsError
from model.recognisers.interface import Config, Network
from model.recognisers.registry import Recogniser, candidates, recogniser_of


def check_told(inside: Config, state: dict[str, Tensor], source: str) -> None:
    """Check that a file is large enough for the network that it tells of, before a claimed size takes memory and time.

    Raises:
        WeightsError: It is not.
    """
    tensors, numbers = inside.least_size()
    if tensors > len(state) or numbers > sum(tensor.numel() for tensor in state.values()):
        raise WeightsError(f"{source} tells of a larger network than it holds: fetch or train it again")


def check_agrees(wanted: Config, inside: Config, source: str, but: frozenset[str] = frozenset()) -> None:
    """Check what no tensor's shape tells, such as the number of heads or which characters. Fields in `but` may differ.

    Raises:
        WeightsError: They contradict each other.
    """
    if wanted.RECOGNISER != inside.RECOGNISER:
        raise WeightsError(
            f"{source} says that it is of the recogniser {inside.RECOGNISER}, not {wanted.RECOGNISER}: "
            "leave the model's name and config out, or give those it was trained with"
        )
    given = wanted.to_dict()
    for name, value in inside.to_dict().items():
        if name not in inside.FREE | but and given[name] != value:
            raise WeightsError(
                f"{source} says that it was trained with {name} {value!r:{LONGEST_SHOWN}}, "
                f"not {given[name]!r:{LONGEST_SHOWN}}: "
                "leave the model's name and config out, or give those it was trained with"
            )


def check_recogniser(network: Network, state: Mapping[str, Tensor], source: str) -> None:
    """Check that the names in `state` are not those of another recogniser.

    Raises:
        WeightsError: They are.
    """
    ours, held = recogniser_of(network.config), candidates(state)
    if held and ours not in held:
        raise WeightsError(
            f"{source} belongs to another network: it holds weights of {held[0].class_name}, not of {ours.class_name}: leave "
            "the model's name and config out, or give those it was trained with"
        )


def check_fit(network: Network, state: dict[str, Tensor], source: str) -> None:
    """Check that `state` has all of the network's tensors, in their shapes, and no others.

    Raises:
        WeightsError: It does not.
    """
    check_recogniser(network, state, source)
    wanted = network.state_dict()
    had, characters = known_characters(network, state), len(network.config.charset_train)
    if had not in (None, characters):
        raise WeightsError(
            f"{source} was trained with {had} characters, the charset has {characters}: "
            "give the config the charset that the weights were trained with"
        )
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing and state and not unexpected:
        raise WeightsError(part_of(recogniser_of(network.config), missing, source))
    if missing or unexpected:
        example = f"lacks {missing[0]}" if missing else f"has {unexpected[0]!r:{LONGEST_SHOWN}} besides"
        raise WeightsError(
            f"{source} belongs to another network ({len(missing)} names missing, {len(unexpected)} unknown; it {example}): "
            "check the model's name or config"
        )
    for key, tensor in wanted.items():
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"{source} belongs to a network of another size: {key} is {tuple(state[key].shape)}, "
                f"expected {tuple(tensor.shape)}; check the model's name or config"
            )
        if not torch.isfinite(state[key]).all():
            raise WeightsError(f"{source} is damaged: {key} holds numbers that are none (nan or inf); fetch or train it again")


def part_of(recogniser: Recogniser, missing: Sequence[str], source: str) -> str:
    """What is wrong with a file that has none but a network's tensors, yet not all of them."""
    return (
        f"{source} holds only a part of the network {recogniser.class_name}: {len(missing)} tensors are missing, such as "
        f"{min(missing)}: fetch or save all of it, or give the config it was trained with"
    )


def known_characters(network: Network, state: Mapping[str, Tensor]) -> int | None:
    """How many characters the weights in `state` know; None if they are not of such a network."""
    name, axis = recogniser_of(network.config).adapting.classes
    wanted: Tensor = network.state_dict()[name]
    found = state.get(name)
    if found is None or found.dim() != wanted.dim():
        return None
    special = wanted.shape[axis] - len(network.config.charset_train)
    return int(found.shape[axis]) - special
