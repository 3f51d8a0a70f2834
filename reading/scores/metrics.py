"""Scores of readings against labels, by the reference implementation's definitions, gathered as readings come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rapidfuzz.distance import Levenshtein

from artifact.text import Reading
from model.charsets import CharsetAdapter
from reading.scores.calibration import Reliability

LENGTHS: Final = ((0, 0), (1, 3), (4, 8), (9, 14), (15, 25), (26, None))
"""Groups of label lengths, in characters."""
KINDS: Final = ("empty", "words", "numbers", "mixed", "punctuation")

EMPTY_FIELDS: Final = ("without_text", "without_text_read_empty", "with_text_read_empty")
"""Of a `Tally`: what results say of crops without a text, and of texts that were not seen."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one data set, in per cent but for `crops`, `ece` and `label_length` (characters)."""

    dataset: str
    crops: int
    accuracy: float
    """Share of crops whose text equals the label, both mapped onto the test charset."""
    one_minus_ned: float
    """One minus the mean edit distance over the length of the longer of text and label."""
    confidence: float
    """Mean product of the probabilities of a text's tokens, the end token's included."""
    label_length: float
    """Mean length of the texts that were read, mapped onto the test charset: the reference's definition."""
    altered: int | None = None
    """Crops whose label says less than what was stored, so that less was asked for; None where nobody counted."""


@dataclass
class Tally:
    """Sums over crops, so that no reading needs to be kept."""

    crops: int = 0
    correct: int = 0
    similarity: float = 0.0
    confidence: float = 0.0
    characters: int = 0
    altered: int | None = None
    without_text: int = 0
    """Crops whose label is empty."""
    without_text_read_empty: int = 0
    with_text_read_empty: int = 0
    """Crops of which nothing was read though their label says something."""
    reliability: Reliability = field(default_factory=Reliability)

    def add(self, text: str, label: str, confidence: float, *, altered: bool | None = None, empty: bool = False) -> bool:
        """Count one crop; whether it was read right.

        Args:
            text, label: What was read and what there is, mapped onto the test charset.
            confidence: That of the text.
            altered: Whether the mapped label says less than the stored one, where that is known.
            empty: Whether nothing at all was read, before anything was mapped.
        """
        right = text == label
        self.crops += 1
        self.correct += right
        self.similarity += Levenshtein.normalized_similarity(text, label)
        self.confidence += confidence
        self.characters += len(text)
        self.without_text += not label
        self.without_text_read_empty += not label and empty
        self.with_text_read_empty += bool(label) and empty
        if altered is not None:
            self.altered = (self.altered or 0) + altered
        self.reliability.add(confidence, right)
        return right

    def score(self, dataset: str) -> Score:
        """Means over the crops counted."""
        count = self.crops
        return Score(
            dataset,
            count,
            accuracy=100 * self.correct / count,
            one_minus_ned=100 * self.similarity / count,
            confidence=100 * self.confidence / count,
            label_length=self.characters / count,
            altered=self.altered,
        )


def score(dataset: str, readings: Sequence[Reading], labels: Sequence[str], charset: str) -> Score:
    """Score readings against labels, both mapped onto `charset`."""
    adapt, tally = CharsetAdapter(charset), Tally()
    for reading, label in zip(readings, labels, strict=True):
        tally.add(adapt(reading.text), adapt(label), reading.confidence)
    return tally.score(dataset)


def combine(scores: Sequence[Score]) -> Score:
    """All data sets as one, weighted by their crops."""
    count = sum(score.crops for score in scores)

    def mean(name: str) -> float:
        return float(sum(getattr(score, name) * score.crops for score in scores) / count)

    names = ("accuracy", "one_minus_ned", "confidence", "label_length")
    counted = [score.altered for score in scores if score.altered is not None]
    altered = sum(counted) if len(counted) == len(scores) else None
    return Score("Combined", count, **{name: mean(name) for name in names}, altered=altered)


def table(scores: Sequence[Score], title: str = "Dataset", *, combined: Score | None = None) -> str:
    """The scores as a text table in the reference implementation's form; with a column more if altered labels were counted."""
    rows = [*scores, combined] if combined else scores
    width = max(len(title), len("Combined"), *(len(score.dataset) for score in rows))
    more = any(score.altered is not None for score in rows)
    lines = [
        f"| {title:<{width}} | # samples | Accuracy | 1 - NED | Confidence | Label Length |" + " Altered labels |" * more,
        f"|:{'-' * width}:|----------:|---------:|--------:|-----------:|-------------:|" + "---------------:|" * more,
        *(_row(score, width, more) for score in scores),
    ]
    if combined:
        rule = f"|-{'-' * width}-|-----------|----------|---------|------------|--------------|"
        lines.append(rule + "----------------|" * more)
        lines.append(_row(combined, width, more))
    return "\n".join(lines)


def _row(s: Score, width: int, more: bool) -> str:
    return (
        f"| {s.dataset:<{width}} | {s.crops:>9} | {s.accuracy:>8.2f} | {s.one_minus_ned:>7.2f} "
        f"| {s.confidence:>10.2f} | {s.label_length:>12.2f} |"
    ) + (f" {'' if s.altered is None else s.altered:>14} |" if more else "")


def kind_of(label: str) -> str:
    """The kind of text: `words` (letters), `numbers` (digits), `mixed` (both), `punctuation` (anything else among them)."""
    if not label:
        return "empty"
    if not all(character.isalnum() for character in label if not character.isspace()):
        return "punctuation"
    digits = any(character.isdigit() for character in label)
    letters = any(not character.isdigit() for character in label if not character.isspace())
    return "mixed" if digits and letters else "numbers" if digits else "words"


def length_group(length: int) -> str:
    """The group of label lengths, such as `4-8`; that of empty labels is `0`."""
    low, high = next((low, high) for low, high in LENGTHS if high is None or length <= high)
    if low == high:
        return str(low)
    return f"{low}-{high}" if high else f"{low} or more"


def in_order(groups: Iterable[str]) -> list[str]:
    """Kinds or groups of lengths in the order of a table."""
    order = [*KINDS, *(length_group(low) for low, _ in LENGTHS)]
    return sorted(groups, key=order.index)
