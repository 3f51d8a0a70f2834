"""Crops much wider than a word: where their words begin and end, windows that overlap, and how their texts are joined. Pure.

The numbers were chosen on rendered lines and training sets of crops; docs/orientation.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.text import Reading

LONG: Final = 5.0
"""From this many times its height on, the width of a crop makes it long."""
SURE: Final = 0.7
"""A long crop that is read with this confidence is one word, unless it is read with spaces where the gaps are, or its words are
read alike with gaps that say otherwise."""
MAX_WORDS: Final = 16
MAX_WINDOWS: Final = 8

INK_ROWS: Final = 32
MAX_COLUMNS: Final = 4096
EMPTY: Final = 0.25
"""A column whose brightness varies less than this, in parts of a usual column of letters, is empty."""
SURE_GAP: Final = 0.28
"""Width of a gap, in heights of the crop, that divides words."""
LEAST_GAP: Final = 0.18
"""Width of a gap that may divide words, if the gaps between letters are much narrower."""
LETTER_GAP: Final = 0.1
"""Gaps narrower than this all count as wide as this."""
GAP_RATIO: Final = 1.6
"""How many times wider than all others gaps between words are: in print of equal pitch gaps between letters are wide too."""
CLEAR_RATIO: Final = 3.0
"""How many times wider than all others they must be to divide what is read as one word with confidence."""
MARGIN: Final = 0.12
"""How much of the gap stays with a word, in heights of the crop."""
CLEAR_WORD: Final = 0.9
USUAL_WORD: Final = 0.9
SINGLE_CHARACTERS: Final = 0.34
"""Words of one character, of all words, at most: more of them are the letters of one word, set wide."""

WINDOW: Final = 4.0
"""Width of a window, in heights of the crop."""
STRIDE: Final = 2.0
MAX_CUT: Final = 2
"""How many characters at the border of a window may be wrong because they are cut."""
CUT_MALUS: Final = 0.3
LENGTH_MALUS: Final = 0.15
LEAST_AGREEMENT: Final = 0.8
UNSURE: Final = 0.5
"""A long crop with less confidence is read in windows."""
CLEAR_JOINT: Final = 0.8
"""What windows say together counts from this confidence on ..."""
LONG_TEXT: Final = 13
"""... and from this many characters: shorter words are wide because their letters are, and were read better as a whole."""

Span = tuple[int, int]
"""First column, and the one behind the last."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a long crop, in pixels from its left side."""

    words: tuple[Span, ...]
    """At least two, or none."""
    clear: bool
    """Whether the gaps between words are far wider than all others."""
    windows: tuple[Span, ...]
    """At least two, or none; each overlaps the next."""


def is_long(width: int, height: int) -> bool:
    """Whether a crop may be longer than a word."""
    return width >= LONG * height


def parts_of(picture: Image.Image) -> Parts:
    """Where to cut a long crop."""
    ink = _ink(picture)
    scale = picture.width / len(ink)
    gaps, clear = _word_gaps(ink)
    words: list[Span] = []
    if 0 < len(gaps) < MAX_WORDS:
        margin = MARGIN * INK_ROWS
        starts = [0.0, *(max(start, end - margin) for start, end in gaps)]
        ends = [*(min(end, start + margin) for start, end in gaps), float(len(ink))]
        words = [(round(start * scale), round(end * scale)) for start, end in zip(starts, ends, strict=True)]
        if any(end <= start for start, end in words):
            words = []
    return Parts(tuple(words), clear, _windows(ink, scale))


def is_line(whole: Reading | None, words: Sequence[Reading | None], clear: bool) -> bool:
    """Whether the texts of the words are to be believed rather than the text of the whole crop.

    Args:
        whole: Of the whole crop.
        words: Of each word.
        clear: As `parts_of` has it.
    """
    read = [word for word in words if word is not None and word.text]
    if len(read) < len(words):
        return False
    if whole is not None and whole.text:
        line = " ".join(word.text for word in read)
        alike = _letters(line).casefold() == _letters(whole.text).casefold()
        if _is_read_as_line(whole, len(words)):
            if alike and whole.confidence >= SURE:
                return line == whole.text
        elif alike or whole.confidence >= SURE:
            # All they may say is that there are spaces. A network that knows none may write a stop, a dash or a low line.
            sure = all(len(word.text) > 1 and word.confidence >= CLEAR_WORD for word in read)
            return clear and sure and _letters(line) == _letters(whole.text)
    if sum(len(word.text) == 1 for word in read) > SINGLE_CHARACTERS * len(read):
        return False
    mean = math.exp(sum(math.log(max(word.confidence, 1e-9)) for word in read) / len(read))
    return mean >= USUAL_WORD and (whole is None or mean > whole.confidence ** (1 / len(read)))


def _is_read_as_line(whole: Reading, n_words: int) -> bool:
    """Whether the network itself has read as many words, with spaces between them."""
    return len(whole.text.split(" ")) == n_words


def _letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def worth_cutting(whole: Reading | None, n_words: int, clear: bool) -> bool:
    """Whether the words need be read at all."""
    return clear or whole is None or whole.confidence < SURE or _is_read_as_line(whole, n_words)


def line_of(words: Sequence[Reading]) -> Reading:
    """The words as one text with spaces; a space has no probability of its own."""
    characters: list[float] = []
    for word in words:
        if characters:
            characters.append(1.0)
        characters += word.character_confidences
    confidence = math.prod(word.confidence for word in words)
    known = all(len(word.character_confidences) == len(word.text) for word in words)
    return Reading(" ".join(word.text for word in words), confidence, tuple(characters) if known else ())


def joined(whole: Reading | None, windows: Sequence[Reading | None], spans: Sequence[Span]) -> Reading | None:
    """The text of windows that overlap, without doubled letters.

    `None`: they do not agree, are less sure than the whole, or say no more than an ordinary word.

    Args:
        whole: Of the whole crop.
        windows: Of each window, from the left; all must have the confidences of their characters.
        spans: The windows.
    """
    text: list[tuple[str, float]] = []
    for index, reading in enumerate(windows):
        if reading is None or not reading.text:
            return None
        letters = list(zip(reading.text, reading.character_confidences, strict=True))
        if not index:
            text = letters
            continue
        (_, end), (start, after) = spans[index - 1], spans[index]
        part = max(0, end - start) / max(1, after - start)
        shared = part * len(letters)
        found = _appended(text, letters, shared)
        if found is None:
            return None
        text = found
    if len(text) < LONG_TEXT:
        return None
    probabilities = [probability for _, probability in text]
    joint = Reading("".join(letter for letter, _ in text), math.prod(probabilities), tuple(probabilities))
    return joint if joint.confidence >= CLEAR_JOINT and (whole is None or joint.confidence > whole.confidence) else None


def _appended(left: list[tuple[str, float]], right: list[tuple[str, float]], shared: float) -> list[tuple[str, float]] | None:
    """`right` appended to `left`, of which the last characters are its first ones, `shared` in number or about so many."""
    best, result = LEAST_AGREEMENT, None
    for cut_left in range(min(MAX_CUT, len(left) - 1) + 1):
        kept = left[: len(left) - cut_left]
        for cut_right in range(min(MAX_CUT, len(right) - 1) + 1):
            rest = right[cut_right:]
            for count in range(1, min(len(kept), len(rest)) + 1):
                ours, theirs = kept[-count:], rest[:count]
                agreement = sum((1 if a == b else -1) * min(p, q) for (a, p), (b, q) in zip(ours, theirs, strict=True))
                score = agreement - CUT_MALUS * (cut_left + cut_right)
                score -= LENGTH_MALUS * abs(count + cut_left + cut_right - shared)
                if score > best:
                    surer = [max(pair, key=lambda each: each[1]) for pair in zip(ours, theirs, strict=True)]
                    best, result = score, [*kept[:-count], *surer, *rest[count:]]
    return result


def _ink(picture: Image.Image) -> NDArray[np.float32]:
    """How much the brightness of each column varies, of the picture at a height of `INK_ROWS`."""
    columns = max(1, min(round(picture.width * INK_ROWS / picture.height), MAX_COLUMNS))
    kind = Image.Resampling.BOX if picture.height > INK_ROWS else Image.Resampling.BILINEAR
    grey = np.asarray(picture.resize((columns, INK_ROWS), kind).convert("L"), np.float32)
    return np.asarray(grey.std(axis=0), np.float32)


def _gaps(ink: NDArray[np.float32]) -> list[Span]:
    """The empty runs of columns between two that are not empty."""
    empty = ink < EMPTY * np.percentile(ink, 90)
    borders = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    runs = [(int(start), int(end)) for start, end in zip(borders[::2], borders[1::2], strict=True)]
    return [(start, end) for start, end in runs if start > 0 and end < len(ink)]


def _word_gaps(ink: NDArray[np.float32]) -> tuple[list[Span], bool]:
    """The gaps that divide words, and whether they are far wider than all others.

    Where the widths of gaps fall into two groups, the wider ones divide words; where they hardly differ, none does.
    """
    gaps = _gaps(ink)
    least, best, narrower = SURE_GAP, GAP_RATIO, LETTER_GAP
    for width in sorted((end - start) / INK_ROWS for start, end in gaps):
        if narrower >= SURE_GAP:
            break
        if width >= LEAST_GAP and width / narrower >= best:
            least, best = width, width / narrower
        narrower = max(width, LETTER_GAP)
    chosen = [(start, end) for start, end in gaps if (end - start) / INK_ROWS >= least]
    others = [(end - start) / INK_ROWS for start, end in gaps if (end - start) / INK_ROWS < least]
    narrowest = min(((end - start) / INK_ROWS for start, end in chosen), default=0.0)
    ratio = narrowest / max(LETTER_GAP, *others, 0.0)
    return chosen if ratio >= GAP_RATIO else [], ratio >= CLEAR_RATIO


def _windows(ink: NDArray[np.float32], scale: float) -> tuple[Span, ...]:
    """Windows whose borders are where there is least ink near by."""
    width, stride = WINDOW * INK_ROWS, STRIDE * INK_ROWS
    count = math.ceil((len(ink) - width) / stride) + 1
    if not 2 <= count <= MAX_WINDOWS:
        return ()
    step = (len(ink) - width) / (count - 1)
    slack = INK_ROWS // 4

    def quiet(column: float) -> int:
        start = max(0, round(column) - slack)
        return start + int(np.argmin(ink[start : round(column) + slack + 1]))

    starts = [0, *(quiet(step * index) for index in range(1, count))]
    ends = [*(quiet(step * index + width) for index in range(count - 1)), len(ink)]
    return tuple((round(start * scale), round(end * scale)) for start, end in zip(starts, ends, strict=True))
