"""What else a crop could say: the most probable texts, from the candidates of each step.

Steps are taken as independent of each other: the probability of a text is the product of those of its tokens and of its end.
A text that ends earlier than the one that was read is among them if the end is a candidate where it ends, and is there no more
probable than what was read from there on: the model has seen that too, and read on. A longer text is not among them: what a
graph gives for the steps behind the end has no meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from artifact.metadata import EOS_ID
from artifact.text import Reading, text_length, text_of

MAX_ALTERNATIVES: Final = 5
"""Texts that can be asked for, at most."""


def count_of(text: str) -> int:
    """How many texts are asked for, written as a number from 1 to `MAX_ALTERNATIVES`.

    Raises:
        ValueError: It is another text; the message says what it must be.
    """
    if len(text) == 1 and text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_ALTERNATIVES:
        return int(text)
    raise ValueError(f"must be a whole number from 1 to {MAX_ALTERNATIVES}")


class _Rest(NamedTuple):
    """What may follow from a step on."""

    probability: float
    text: str
    probabilities: tuple[float, ...]
    """Of its tokens and its end."""


def alternatives_of(
    top_ids: Sequence[Sequence[int]],
    top_confidences: Sequence[Sequence[float]],
    vocabulary: Sequence[str],
    count: int,
    read: Reading,
) -> tuple[Reading, ...]:
    """The most probable texts of one crop, all different.

    Args:
        top_ids: The candidates of each step, best first, as the output `top_ids` has them; 0 ends the text.
        top_confidences: Their probabilities. One of probability 0 is no candidate.
        vocabulary: What the ids stand for, as for `text_of`.
        count: How many texts, at most.
        read: The text that was read, which comes first.

    Returns:
        Less than `count` texts if there are no more. Confidences never rise.

    Raises:
        ValueError: An id is not in the vocabulary.
    """
    length = text_length([ids[0] for ids in top_ids])
    for ids in top_ids[: length + 1]:
        if min(ids) < 0 or max(ids) > len(vocabulary):
            raise ValueError("the model gave a token id that is not in its charset")
    rests = _endings(top_ids, top_confidences, length)
    for step in reversed(range(length)):
        rests = _step_back(top_ids[step], top_confidences[step], vocabulary, rests, count)
    others = [
        Reading(rest.text, min(read.confidence, math.prod(rest.probabilities))) for rest in rests if rest.text != read.text
    ]
    others.sort(key=lambda reading: -reading.confidence)
    return (read, *others[: count - 1])


def read_with_alternatives(
    token_ids: Sequence[int],
    confidences: Sequence[float],
    top_ids: Sequence[Sequence[int]],
    top_confidences: Sequence[Sequence[float]],
    vocabulary: Sequence[str],
    count: int,
) -> Reading:
    """The text of one crop (see `text_of`) with the most probable texts, `count` at most, this one first.

    Raises:
        ValueError: An id is not in the vocabulary.
    """
    reading = text_of(token_ids, confidences, vocabulary)
    return replace(reading, alternatives=alternatives_of(top_ids, top_confidences, vocabulary, count, reading))


def _endings(top_ids: Sequence[Sequence[int]], top_confidences: Sequence[Sequence[float]], length: int) -> list[_Rest]:
    """What follows the last character that was read: the end, if there is a step for it."""
    if length == len(top_ids):
        return [_Rest(1.0, "", ())]
    confidence = top_confidences[length][0]
    return [_Rest(confidence, "", (confidence,))]


def _step_back(
    ids: Sequence[int], confidences: Sequence[float], vocabulary: Sequence[str], rests: list[_Rest], count: int
) -> list[_Rest]:
    """The most probable rests from one step earlier on, each text once; what was read is the first of `rests`."""
    found = list[_Rest]()
    for rank, (token_id, confidence) in enumerate(zip(ids, confidences, strict=True)):
        if rank and confidence <= 0.0:
            continue
        if token_id == EOS_ID:
            if confidence <= confidences[0] * rests[0].probability:
                found.append(_Rest(confidence, "", (confidence,)))
            continue
        entry = vocabulary[token_id - 1]
        found += [_Rest(confidence * rest.probability, entry + rest.text, (confidence, *rest.probabilities)) for rest in rests]
    found.sort(key=lambda rest: -rest.probability)
    best = dict[str, _Rest]()
    for rest in found:
        best.setdefault(rest.text, rest)
        if len(best) > count:  # one more than asked for: another text may be just as probable as the one that was read
            break
    return list(best.values())
