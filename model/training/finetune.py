"""Training that begins with weights of another charset or label length: what is kept, and what begins with random weights.

Everything that does not depend on charset or label length is kept. Characters that both charsets have keep the rows of their
embedding and of the head, whatever their ids are; so do the end, begin and pad tokens. Positions that both have are kept. New
characters and positions begin with random weights. With any other difference the weights cannot be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model.charsets import CHARSETS
from model.checkpoints.agreement import check_agrees, check_fit, check_recogniser, known_characters
from model.checkpoints.recognise import same_shape
from model.errors import WeightsError
from model.recognisers.interface import Config, Network
from model.recognisers.registry import recogniser_of

SHOWN: Final = 40
"""Characters of a list that are shown in a message."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a network took over from weights of another charset or label length."""

    source: str
    characters: int
    new: str
    """Characters that begin with random rows."""
    dropped: str
    """Characters that the weights knew and the network lacks."""
    positions: int
    """Positions that were kept; 0 if no weights depend on positions."""
    new_positions: int

    def __str__(self) -> str:
        """As told to the user."""
        if not (self.new or self.dropped or self.new_positions):
            return f"beginning with {self.source}: all weights are kept"
        parts = [f"{self.characters} characters keep their rows of the embedding and the head"]
        if self.new:
            parts.append(f"{len(self.new)} new ones begin at random: {_short(self.new)}")
        if self.dropped:
            parts.append(f"{len(self.dropped)} are dropped: {_short(self.dropped)}")
        if self.positions:
            parts.append(f"{self.positions} positions are kept")
        if self.new_positions:
            parts.append(f"{self.new_positions} new ones begin at random")
        return f"beginning with {self.source}: {'; '.join(parts)}; all other weights are kept"


def _short(characters: str) -> str:
    return repr(characters if len(characters) <= SHOWN else characters[:SHOWN] + "...")


def begin_with(network: Network, state: dict[str, Tensor], told: Config | None, source: str) -> Kept:
    """Give `network` the weights of `state`, by the module's rule.

    Args:
        network: Changed in place; whatever is new keeps its present values.
        state: The weights.
        told: The architecture that the file tells, if it does.
        source: Its name, for messages.

    Raises:
        WeightsError: The weights belong to another network, or do not tell their charset.
    """
    config = network.config
    if told is not None:
        check_agrees(config, told, source, but=config.ADAPTABLE)
    check_recogniser(network, state, source)
    wanted = network.state_dict()
    ours = config.charset_train
    theirs = told.charset_train if told is not None else _guess_charset(state, network, source)
    adapting = recogniser_of(config).adapting
    adapted = dict(state)
    for name, axis in adapting.by_character.items():
        if name in state and same_shape(wanted[name], state[name], axis):
            rows = _rows(wanted[name].movedim(axis, 0), state[name].movedim(axis, 0), ours, theirs)
            adapted[name] = rows.movedim(0, axis)
    had = positions = config.max_label_length + 1 if adapting.by_position else 0
    for name, axis in adapting.by_position.items():
        if name in wanted and name in state and same_shape(wanted[name], state[name], axis):
            had = state[name].shape[axis]
            both = min(had, positions)
            new = wanted[name].narrow(axis, both, positions - both)
            adapted[name] = torch.cat([state[name].narrow(axis, 0, both), new], axis)
    check_fit(network, adapted, source)
    network.load_state_dict(adapted)
    return Kept(
        source,
        characters=len(set(ours) & set(theirs)),
        new="".join(c for c in ours if c not in theirs),
        dropped="".join(c for c in theirs if c not in ours),
        positions=min(had, positions),
        new_positions=max(0, positions - had),
    )


def _guess_charset(state: dict[str, Tensor], network: Network, source: str) -> str:
    """The charset of weights that do not tell it: the network's own, or the standard one of their size."""
    ours = network.config.charset_train
    count = known_characters(network, state)
    for charset in (ours, *CHARSETS.values()):
        if count in (None, len(charset)):
            return charset
    raise WeightsError(
        f"{source} does not tell the charset of its {count} characters, and it is none of the standard ones: "
        "begin with a training checkpoint (.ckpt) or with weights that parseq-train has written, which tell it"
    )


def _rows(target: Tensor, source: Tensor, ours: str, theirs: str) -> Tensor:
    """Rows of the end token (or blank), the characters, and the special tokens after them, put where they belong."""
    if len(source) < len(theirs) + 1:
        return source
    rows = target.clone()
    rows[0] = source[0]
    place = {character: index for index, character in enumerate(theirs, start=1)}
    for index, character in enumerate(ours, start=1):
        if character in place:
            rows[index] = source[place[character]]
    special = len(target) - len(ours) - 1
    if special and len(source) == len(theirs) + 1 + special:
        rows[len(ours) + 1 :] = source[len(theirs) + 1 :]
    return rows
