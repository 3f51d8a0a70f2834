"""From token ids and their probabilities to text and confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from export.artifact import EOS_ID
from service.engine.types import Confidences, TokenIds


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model read in one crop."""

    text: str
    confidence: float
    """Product of the probabilities of the text's tokens and of the end-of-sequence token, when there is one."""
    character_confidences: tuple[float, ...]
    """The probability of each character, as many as the text has."""


def decode_tokens(token_ids: TokenIds, confidences: Confidences, charset: str) -> Reading:
    """Decode one crop's tokens.

    Args:
        token_ids: int64 `[max_label_length + 1]`; 0 ends the text, `i` is `charset[i - 1]`.
        confidences: float32, same shape: the probability of each token.
        charset: Of the artifact.

    Raises:
        ValueError: an id is not one of the charset's.
    """
    ids = token_ids.tolist()
    length = ids.index(EOS_ID) if EOS_ID in ids else len(ids)
    if any(not 0 < token_id <= len(charset) for token_id in ids[:length]):
        raise ValueError("the model gave a token id that is not in its charset")
    # The probability of stopping here counts: a word cut short must not look certain.
    probabilities = [float(value) for value in confidences[: length + 1].tolist()]
    return Reading(
        text="".join(charset[token_id - 1] for token_id in ids[:length]),
        confidence=math.prod(probabilities),
        character_confidences=tuple(probabilities[:length]),
    )
