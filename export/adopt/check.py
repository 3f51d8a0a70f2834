"""Checks a description: drawn words must be read under it, and no other description may read them better.

Nothing else can show that it is right: an artifact from a wrong description reads as the original does under the same
description. So facts are changed one at a time, and the likelihood of the drawn words is computed for each description.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from artifact.metadata import ArtifactMetadata
from export.adopt.description import Description
from export.adopt.original import Original, run
from export.adopt.scores import Scores, class_table, collapsed
from export.adopt.words import Words, draw_words, log_likelihood
from export.graphs.interface import ExportError

MIN_RIGHT: Final = 0.5
"""Smallest share of the words that must be read correctly."""
MIN_GAIN: Final = 0.2
"""By how much another description must raise the mean logarithm of a word's probability to be better."""
MIN_Z: Final = 3.0
"""By how many standard errors it must do so."""
MIN_SHARE: Final = 0.4
"""Which share of the mean negative logarithm it must remove: recognisers read drawn words a little better under a normalisation
with less contrast than the one they have learned with, and the less they know such words the more (ADR 0012)."""
SMALLEST_ERROR: Final = 1e-6
NORMALISATIONS: Final[Mapping[str, tuple[float, tuple[float, ...], tuple[float, ...]]]] = {
    "mean 0.5, std 0.5": (255.0, (0.5,), (0.5,)),
    "mean 0, std 1": (255.0, (0.0,), (1.0,)),
    "the mean and std of ImageNet": (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "the mean and std of docTR": (255.0, (0.694, 0.695, 0.693), (0.299, 0.296, 0.301)),
    "pixels from 0 to 255": (1.0, (0.0,), (1.0,)),
}
"""Divisor, mean and std of the normalisations in use."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A description that differs in one fact, and the words for that difference."""

    name: str
    description: Description
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WordScore:
    """How a description reads the words."""

    name: str
    right: float
    """Share of the words that are read correctly."""
    gain: float = 0.0
    """Mean gain of the logarithm of a word's probability over the given description."""
    z: float = 0.0
    """The gain in standard errors."""
    share: float = 0.0
    """The gain as a share of what could be gained, the mean negative logarithm under the given description."""

    @property
    def better(self) -> bool:
        """Whether the gain is too large for chance and for a matter of taste."""
        return self.gain > MIN_GAIN and self.z > MIN_Z and self.share > MIN_SHARE


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of the check. It is stored in the artifact as JSON."""

    count: int
    right: float
    example: str
    """A word that was misread, if one was."""
    others: list[WordScore] = field(default_factory=list)
    """The alternatives, the best first."""

    @property
    def problem(self) -> str | None:
        """Why the description must be wrong, in one sentence; None if nothing indicates that."""
        better = [score for score in self.others if score.better]
        read = f"{self.right:.0%} of {self.count} drawn words are read rightly"
        if better:
            return (
                f"{better[0].name} reads better than what the description says: {better[0].right:.0%} of {self.count} drawn "
                f"words against {self.right:.0%}, their mean log probability higher by {better[0].gain:.2g}"
                + (f"; so does {', '.join(score.name for score in better[1:])}" if better[1:] else "")
            )
        if self.right < MIN_RIGHT:
            return f"only {read}{self.example}, and no other description with one fact changed reads better: are several wrong?"
        return None


class MisreadError(RuntimeError):
    """Words are not read under the description, or are read better under another one; nothing was written."""

    def __init__(self, judgement: Judgement) -> None:
        """Keep the judgement; its summary is the message."""
        super().__init__(judgement.problem)
        self.judgement = judgement


def judge(
    original: Original, description: Description, entries: tuple[str, ...], metadata: ArtifactMetadata, font: Path | None
) -> Judgement:
    """Read drawn words with the original under the description and under those that differ in one fact.

    Raises:
        ExportError: There is nothing to draw words of.
    """
    words = draw_words(entries, metadata, font)
    scores = run(original, words.pixels, description)
    given, right, example = _score(scores, description, entries, words)
    others = []
    for other in alternatives(description, entries, original.channels):
        try:
            # Only a different input needs another run.
            there = (
                scores if _input(other.description) == _input(description) else run(original, words.pixels, other.description)
            )
            found, right_there, _ = _score(there, other.description, other.entries, words)
        except ExportError:
            continue  # the description does not fit the output
        gains = found - given
        gain, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
        share = gain / max(-float(given.mean()), SMALLEST_ERROR)
        others.append(WordScore(other.name, right_there, gain, gain / max(error, SMALLEST_ERROR), share))
    others.sort(key=lambda score: -score.gain)
    return Judgement(len(words.texts), right, example, others)


def _input(description: Description) -> tuple[object, ...]:
    return description.colours, description.divisor, description.mean, description.std


def _score(
    scores: Scores, description: Description, entries: tuple[str, ...], words: Words
) -> tuple[NDArray[np.float64], float, str]:
    """The logarithm of each word's probability, the share that is read rightly, and a word that is not."""
    table = class_table(description, scores.classes, entries)
    place = {entry: number for number, entry in reversed(list(zip(np.flatnonzero(table > 0).tolist(), entries, strict=True)))}
    wanted = [[place.get(character, -1) for character in text] for text in words.texts]
    logs = log_likelihood(scores, wanted, description.special_class(scores.classes), description.decoding)
    texts = []
    for tokens in scores.best(table).tolist():
        if description.decoding == "ctc":
            tokens, _ = collapsed(tokens, [1.0] * len(tokens))
        texts.append("".join(entries[token - 1] for token in itertools.takewhile(bool, tokens)))
    wrong = [(text, word) for text, word in zip(texts, words.texts, strict=True) if text != word]
    example = f" (such as {wrong[0][0]!r} for {wrong[0][1]!r})" if wrong else ""
    return logs, 1 - len(wrong) / len(texts), example


def alternatives(description: Description, entries: tuple[str, ...], channels: int) -> Iterator[Alternative]:
    """Descriptions that differ in one fact, so that the file can be read by them."""
    if channels == 3:
        for colours in ("rgb", "bgr"):
            if colours != description.colours:
                yield Alternative(f"colours {colours}", replace(description, colours=colours), entries)
    for name, (divisor, mean, std) in NORMALISATIONS.items():
        if (divisor, mean, std) != (description.divisor, description.mean, description.std):
            yield Alternative(name, replace(description, divisor=divisor, mean=mean, std=std), entries)
    yield from _other_classes(description, entries)
    yield from _other_charsets(description, entries)


def _other_classes(description: Description, entries: tuple[str, ...]) -> Iterator[Alternative]:
    places: tuple[Literal["first", "last"], ...] = ("first", "last")
    for place in places:
        if place != description.special:
            name = f"the {description.special_name} as the {place} class"
            yield Alternative(name, replace(description, special=place), entries)
    other = replace(description, decoding="steps" if description.decoding == "ctc" else "ctc")
    for place in places:
        name = f"decoding {other.decoding} with the {other.special_name} as the {place} class"
        yield Alternative(name, replace(other, special=place), entries)


def _other_charsets(description: Description, entries: tuple[str, ...]) -> Iterator[Alternative]:
    shifted = {
        "a charset that begins one class later": (entries[-1], *entries[:-1]),
        "a charset that begins one class earlier": (*entries[1:], entries[0]),
        "a charset with capital and small letters exchanged": tuple(
            entry.swapcase() if entry.isascii() else entry for entry in entries
        ),
    }
    for name, other in shifted.items():
        if other != entries:
            yield Alternative(name, description, other)
