"""What is read of one crop, and in which order: as it is, turned, in parts. Reading itself is the caller's.

Service and offline readers drive it alike, so that both give the same text:

    views = Views(picture, orientation, split)
    while wanted := views.wanted(readings):
        ...  # read `views.pictures[index]` for each index, into `readings`
    found = views.found(readings)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from artifact.long_crops import UNSURE, Parts, Span, is_line, is_long, joined, line_of, parts_of, worth_cutting
from artifact.orientation import FULL_BELOW, Orientation, is_doubtful, is_tall, may_be_turned, most_plausible, turned
from artifact.text import Reading

AS_IT_IS: Final = 0
"""Index of the view that is the picture itself."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the picture as it is; right and bottom are behind the last pixel."""
Readings = Mapping[int, Reading | None]
"""By index of the view; `None` of one that could not be read."""


@dataclass(frozen=True, slots=True)
class Word:
    """One of the words of a line."""

    text: str
    confidence: float
    box: Box


@dataclass(frozen=True, slots=True)
class Found(Reading):
    """What was read in one crop after all that was asked for had been tried."""

    angle: int | None = None
    """Degrees, clockwise, by which the picture was turned before it was read; `None` where no turning was asked for."""
    words: tuple[Word, ...] = ()
    """If it is a line of several words: each of them, in their order."""


class Views:
    """The views of one crop.

    Args:
        picture: RGB, as it shall be seen.
        orientation: Which turned views there are.
        split: Whether a long crop is also read in parts.
    """

    def __init__(self, picture: Image.Image, orientation: Orientation, split: bool) -> None:
        self.pictures = [picture]
        """What to read, by index; the first one is the picture itself. The caller may let go of them."""
        self.reasons = ["whole"]
        """What each is read for, by index: `whole`, `turned`, `upside_down`, `word` or `window`."""
        self.size = picture.size
        self._turns = orientation != "upright"
        self._turned = {0: AS_IT_IS}
        self._upside_down: dict[int, int] = {}
        self._parts: dict[int, tuple[Parts, range, range]] = {}
        views = {0: picture}
        if orientation != "upright" and may_be_turned(*picture.size):
            for angle in (90, 270):
                views[angle] = turned(picture, angle)
                self._turned[angle] = self._add(views[angle], "turned")
        if orientation == "full":
            views[180] = turned(picture, 180)
            self._upside_down[180] = self._add(views[180], "upside_down")
        if split:
            for angle, view in views.items():
                if is_long(*view.size):
                    self._add_parts(angle, view)

    def wanted(self, readings: Readings) -> list[int]:
        """Which views to read next; none: `found` can be asked.

        Args:
            readings: What has been read so far.
        """
        for indices in (self._angles(readings), self._words(readings), self._windows(readings)):
            if wanted := [index for index in indices if index not in readings]:
                return wanted
        return []

    def found(self, readings: Readings) -> Found | None:
        """What was read; `None` if no view could be. Views that are not there count as if they could not be read."""
        angle, whole = self._best(readings)
        if angle in self._parts:
            parts, words, windows = self._parts[angle]
            if self._is_line(readings, angle, whole):
                read = [reading for index in words if (reading := readings.get(index)) is not None]
                boxes = [self._box(angle, span) for span in parts.words]
                line = tuple(Word(word.text, word.confidence, box) for word, box in zip(read, boxes, strict=True))
                return self._found(_made_of(read, line_of(read)), angle, line)
            texts = [readings.get(index) for index in windows]
            if texts and (joint := joined(whole, texts, parts.windows)) is not None:
                return self._found(_made_of(texts, joint), angle)
        return None if whole is None else self._found(whole, angle)

    def _add(self, picture: Image.Image, reason: str) -> int:
        self.pictures.append(picture)
        self.reasons.append(reason)
        return len(self.pictures) - 1

    def _add_parts(self, angle: int, view: Image.Image) -> None:
        parts = parts_of(view)
        words = self._add_spans(view, parts.words, "word")
        self._parts[angle] = (parts, words, self._add_spans(view, parts.windows, "window"))

    def _add_spans(self, view: Image.Image, spans: Sequence[Span], reason: str) -> range:
        start = len(self.pictures)
        for left, right in spans:
            self._add(view.crop((left, 0, right, view.height)), reason)
        return range(start, len(self.pictures))

    def _all_angles(self, readings: Readings) -> dict[int, int]:
        """The views of the whole picture that count, by angle."""
        upside_down = {angle: index for angle, index in self._upside_down.items() if index in readings}
        return {**self._turned, **upside_down}

    def _best(self, readings: Readings) -> tuple[int, Reading | None]:
        angles = self._all_angles(readings)
        angle = most_plausible({angle: readings.get(index) for angle, index in angles.items()}, *self.size)
        return angle, readings.get(angles[angle])

    def _angles(self, readings: Readings) -> list[int]:
        indices = list(self._turned.values())
        if not is_tall(*self.size) and (AS_IT_IS not in readings or not is_doubtful(readings[AS_IT_IS])):
            indices = [AS_IT_IS]
        if self._upside_down and all(index in readings for index in indices):
            _, best = self._best({index: readings[index] for index in indices})
            if best is None or best.confidence < FULL_BELOW:
                indices += self._upside_down.values()
        return indices

    def _words(self, readings: Readings) -> Sequence[int]:
        angle, whole = self._best(readings)
        if angle not in self._parts:
            return ()
        parts, words, _ = self._parts[angle]
        return words if worth_cutting(whole, len(words), parts.clear) else ()

    def _windows(self, readings: Readings) -> Sequence[int]:
        angle, whole = self._best(readings)
        if angle not in self._parts or (whole is not None and whole.confidence >= UNSURE):
            return ()
        return () if self._is_line(readings, angle, whole) else self._parts[angle][2]

    def _is_line(self, readings: Readings, angle: int, whole: Reading | None) -> bool:
        parts, words, _ = self._parts[angle]
        return bool(words) and is_line(whole, [readings.get(index) for index in words], parts.clear)

    def _box(self, angle: int, span: Span) -> Box:
        """Where a part of the turned picture is in the picture as it is."""
        (left, right), (width, height) = span, self.size
        if angle == 90:
            return 0, height - right, width, height - left
        if angle == 180:
            return width - right, 0, width - left, height
        if angle == 270:
            return 0, left, width, right
        return left, 0, right, height

    def _found(self, reading: Reading, angle: int, words: tuple[Word, ...] = ()) -> Found:
        told = angle if self._turns else None
        return Found(
            reading.text, reading.confidence, reading.character_confidences, reading.alternatives, angle=told, words=words
        )


def _made_of(parts: Sequence[Reading | None], whole: Reading) -> Reading:
    """A text made of several: it is its own only alternative, where alternatives were asked for."""
    asked = any(part is not None and part.alternatives for part in parts)
    return replace(whole, alternatives=(whole,)) if asked else whole
