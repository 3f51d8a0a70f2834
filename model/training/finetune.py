"""Beginning with weights of another charset or label length: what is kept, and what begins anew.

Everything that does not depend on either is kept. Characters that both charsets have keep the rows of their embedding and of
the head, whatever their number is; so do the end, begin and pad tokens. The positions both have are kept. What is new begins
with random weights. Any other difference is another network, which cannot be continued.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.charsets import CHARSETS
from model.checkpoints.loading import WeightsError, check_agrees, check_fit
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq

HEAD = ("head.weight", "head.bias")
EMBEDDING = "text_embed.embedding.weight"
POSITIONS = "pos_queries"
ADAPTABLE = frozenset({"charset_train", "max_label_length"})
SHOWN = 40
"""Characters of a list that are shown in a message."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a network took over from weights of another charset or label length."""

    source: str
    characters: int
    new: str
    """Characters that begin with random rows."""
    dropped: str
    """Characters that the weights knew and the network has not."""
    positions: int
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
        parts.append(f"{self.positions} positions are kept")
        if self.new_positions:
            parts.append(f"{self.new_positions} new ones begin at random")
        return f"beginning with {self.source}: {'; '.join(parts)}; all other weights are kept"


def _short(characters: str) -> str:
    return repr(characters if len(characters) <= SHOWN else characters[:SHOWN] + "...")


def begin_with(network: PARSeq, state: dict[str, Tensor], told: PARSeqConfig | None, source: str) -> Kept:
    """Give `network` the weights of `state`, as far as the module's rule goes.

    Args:
        network: to be changed; what begins anew keeps the values that it has.
        state: the weights.
        told: the architecture that the file tells, if it does.
        source: its name, for messages.

    Raises:
        WeightsError: the weights belong to another network, or do not tell their charset.
    """
    if told is not None:
        check_agrees(network.config, told, source, but=ADAPTABLE)
    wanted = network.state_dict()
    charset = told.charset_train if told is not None else _guess_charset(state, network, source)
    adapted = dict(state)
    for name in (*HEAD, EMBEDDING):
        if name in state:
            adapted[name] = _rows(wanted[name], state[name], network.tokenizer.charset, charset)
    positions = wanted[POSITIONS].shape[1]
    had = state[POSITIONS].shape[1] if POSITIONS in state and state[POSITIONS].dim() == 3 else positions
    if had != positions and state[POSITIONS].shape[2] == wanted[POSITIONS].shape[2]:
        both = min(had, positions)
        adapted[POSITIONS] = torch.cat([state[POSITIONS][:, :both], wanted[POSITIONS][:, both:]], 1)
    check_fit(network, adapted, source)
    network.load_state_dict(adapted)
    ours, theirs = network.tokenizer.charset, charset
    return Kept(
        source,
        characters=len(set(ours) & set(theirs)),
        new="".join(c for c in ours if c not in theirs),
        dropped="".join(c for c in theirs if c not in ours),
        positions=min(had, positions),
        new_positions=max(0, positions - had),
    )


def _guess_charset(state: dict[str, Tensor], network: PARSeq, source: str) -> str:
    """The charset of weights that do not tell it: the network's own, or the standard one of their size."""
    head = state.get(HEAD[0])
    classes = network.head.out_features if head is None or head.dim() != 2 else head.shape[0]
    if classes == network.head.out_features:
        return network.tokenizer.charset
    for charset in CHARSETS.values():
        if len(charset) + 1 == classes:
            return charset
    raise WeightsError(
        f"{source} does not tell the charset of its {classes - 1} characters, and it is none of the standard ones: "
        "begin with a training checkpoint (.ckpt) or with weights that parseq-train has written, which tell it"
    )


def _rows(target: Tensor, source: Tensor, ours: str, theirs: str) -> Tensor:
    """Rows of the end token, the characters, and (in the embedding) the begin and pad tokens, put where they belong."""
    if source.shape[1:] != target.shape[1:] or len(source) < len(theirs) + 1:
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
