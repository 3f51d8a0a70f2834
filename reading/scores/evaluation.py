"""Reading data sets and scoring them under several test charsets at once, crop by crop: nothing grows with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tqdm import tqdm

from model.data.alterations import Alterations
from model.data.labels import is_empty
from model.data.pictures import BrokenImageError, as_stored, is_plain, rotated
from model.data.spelling import Spelling, speller
from reading.pictures.crop_sets import CropSet, StoredPicture, picture_of
from reading.readers.interface import Picture, Reader
from reading.scores.calibration import Reliability
from reading.scores.error_sheet import WorstMistakes
from reading.scores.metrics import Score, Tally, combine, kind_of, length_group

BROKEN: Final = "broken"
UNREADABLE_LABEL: Final = "whose label is missing or not UTF-8"
TOO_LONG: Final = "longer than the model can say"
NO_CHARACTER: Final = "without a character of the test charset"


@dataclass(frozen=True, slots=True)
class Rules:
    """Which crops count, and how they are shown to the reader."""

    rotation: float = 0.0
    """By how many degrees crops are turned counter-clockwise."""
    normalise_unicode: bool = True
    keep_whitespace: bool | None = None
    """Both as for `model.data.spelling.Speller`."""
    keep_long_labels: bool = False
    """Count crops whose label is longer than the model can read as errors; the reference leaves them out."""
    keep_empty: bool = False
    """Count crops whose label is empty: read right if nothing is read. The reference leaves them out."""


@dataclass
class Scoring:
    """The scores under one test charset."""

    name: str
    charset: str
    max_label_length: int
    rules: Rules
    worst: WorstMistakes
    sets: dict[str, Tally] = field(default_factory=dict)
    kinds: dict[str, Tally] = field(default_factory=dict)
    lengths: dict[str, Tally] = field(default_factory=dict)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    alterations: dict[str, Alterations] = field(default_factory=dict)
    """What the labels of each data set lose to the charset, including labels of which nothing is left."""

    def __post_init__(self) -> None:
        """Prepare the mapping onto the charset."""
        self.speller = speller(self.charset, self.rules.normalise_unicode, self.rules.keep_whitespace)

    def begin(self, dataset: str) -> None:
        """Begin a data set: the crops that follow belong to it."""
        self.sets[dataset], self.left_out[dataset], self.alterations[dataset] = Tally(), Counter(), Alterations()

    def label(self, dataset: str, stored: str | None) -> Spelling | None:
        """The label, mapped onto the charset; None, and counted, if the crop is left out."""
        if stored is None:
            self.left_out[dataset][UNREADABLE_LABEL] += 1
            return None
        label = self.speller.spell(stored)
        # As in the reference, the length before mapping counts: a text that cannot be read whole would not be a fair test.
        if len(label.whole) > self.max_label_length and not self.rules.keep_long_labels:
            self.left_out[dataset][TOO_LONG] += 1
            return None
        self.alterations[dataset].add(label)
        if not label.text and not (self.rules.keep_empty and is_empty(stored)):
            self.left_out[dataset][NO_CHARACTER] += 1
            return None
        return label

    def add(self, dataset: str, picture: Picture, label: Spelling, text: str, confidence: float) -> None:
        """Count the reading of one crop."""
        read, empty = self.speller.read(text), not text
        if not self.sets[dataset].add(read, label.text, confidence, altered=label.altered, empty=empty):
            self.worst.add(confidence, picture.image, label.text, read, dataset)
        for groups, name in ((self.kinds, kind_of(label.whole)), (self.lengths, length_group(len(label.text)))):
            groups.setdefault(name, Tally()).add(read, label.text, confidence, altered=label.altered, empty=empty)

    def scores(self) -> list[Score]:
        """The score of every data set with crops."""
        return [tally.score(name) for name, tally in self.sets.items() if tally.crops]

    def combined(self) -> Score:
        """All data sets as one, weighted by their crops."""
        return combine(self.scores())

    def reliability(self) -> Reliability:
        """The reliability over all data sets."""
        every = Reliability()
        for tally in self.sets.values():
            every.merge(tally.reliability)
        return every


Labels = list[Spelling | None]
"""The label of one crop under every test charset; None where the crop does not count."""


def score_sets(reader: Reader, sets: Iterable[CropSet], scorings: Sequence[Scoring], rules: Rules, batch_size: int) -> None:
    """Read all data sets once, and score every reading under all test charsets."""
    for crops in sets:
        for scoring in scorings:
            scoring.begin(crops.name)
        with tqdm(total=crops.count, desc=crops.name, unit="crop", disable=None) as bar:
            batch: list[tuple[Picture, Labels]] = []
            for entry in _usable(crops, scorings, rules, bar):
                batch.append(entry)
                if len(batch) == batch_size:
                    _read(reader, crops.name, batch, scorings)
                    batch = []
            if batch:
                _read(reader, crops.name, batch, scorings)


def _usable(crops: CropSet, scorings: Sequence[Scoring], rules: Rules, bar: tqdm[object]) -> Iterator[tuple[Picture, Labels]]:
    for stored, label in crops.iterate():
        bar.update()
        labels = [scoring.label(crops.name, label) for scoring in scorings]
        if not any(labels):
            continue
        try:
            picture = _picture(stored, rules.rotation)
        except BrokenImageError:
            for scoring, counts in zip(scorings, labels, strict=True):
                scoring.left_out[crops.name][BROKEN] += counts is not None
            continue
        yield picture, labels


def _picture(stored: StoredPicture, rotation: float) -> Picture:
    image, file = picture_of(stored)
    plain = file is not None and not rotation and is_plain(image)
    return Picture(rotated(as_stored(image), rotation), file if plain else None)


def _read(reader: Reader, dataset: str, batch: list[tuple[Picture, Labels]], scorings: Sequence[Scoring]) -> None:
    readings = reader.read([picture for picture, _ in batch])
    for (picture, labels), reading in zip(batch, readings, strict=True):
        for scoring, label in zip(scorings, labels, strict=True):
            if label is not None:
                scoring.add(dataset, picture, label, reading.text, reading.confidence)
