"""From the ids and probabilities that a graph gives to text and confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from artifact.metadata import EOS_ID


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in one crop."""

    text: str
    confidence: float
    """Product of the probabilities of the text's tokens and of the end token, when there is one."""
    character_confidences: tuple[float, ...] = ()
    """The probability of each character of the text; empty where they are not known."""
    alternatives: tuple[Reading, ...] = ()
    """The most probable texts, this one first, where they were asked for."""


def text_length(token_ids: Sequence[int]) -> int:
    """Number of ids before the end token; of all ids if there is none."""
    for position, token_id in enumerate(token_ids):
        if token_id == EOS_ID:
            return position
    return len(token_ids)


def text_of(token_ids: Sequence[int], confidences: Sequence[float], vocabulary: Sequence[str]) -> Reading:
    """The text of one crop from the tokens that a graph gives.

    Args:
        token_ids: The token of each step; 0 ends the text, `i` is `vocabulary[i - 1]`. Plain integers: `.tolist()` of a row.
        confidences: The probability of each token.
        vocabulary: The artifact's charset, or its symbols of several characters, which have their symbol's probability each.

    Raises:
        ValueError: An id is not in the vocabulary.
    """
    length = text_length(token_ids)
    kept = token_ids[:length]
    if kept and not (min(kept) > 0 and max(kept) <= len(vocabulary)):
        raise ValueError("the model gave a token id that is not in its charset")
    # The probability of the end counts too: a word that is cut short must not look certain.
    probabilities = confidences[: length + 1]
    symbols = [vocabulary[token_id - 1] for token_id in kept]
    if isinstance(vocabulary, str):
        characters = tuple(probabilities[:length])
    else:
        characters = tuple(p for p, symbol in zip(probabilities, symbols, strict=False) for _ in symbol)
    return Reading(text="".join(symbols), confidence=math.prod(probabilities), character_confidences=characters)
