"""Texts to draw: words, figures and random strings, of 1 to 25 printable ASCII characters without space."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from model.charsets import PRINTABLE
from model.synth.words import figures, phrases
from model.synth.words.chance import Rng, in_some_case, pick
from model.synth.words.sign_words import SIGN_WORDS
from model.synth.words.split import Split, is_validation

CHARSET: Final = PRINTABLE
MAX_LENGTH: Final = phrases.MAX_LENGTH

COMMON_DICTIONARY: Final = Path("/usr/share/dict/american-english-small")
LARGE_DICTIONARY: Final = Path("/usr/share/dict/american-english-huge")

VALIDATION_PER_MILLE: Final = 50
_WORD_SHARE, _FIGURE_SHARE = 0.62, 0.18
_SIGN_SHARE, _COMMON_SHARE = 0.3, 0.4
# Of dictionary words by length: what stands on signs is short.
_LENGTH_WEIGHTS: Final = (0, 1, 6, 12, 16, 16, 14, 11, 9, 6, 4.5, 3, 2, 1.5, 1, 0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.1, 0.1)
_WORD: Final = re.compile(r"[A-Za-z]+")

TextKind = Literal["long", "line", "currency"]
"""Texts of 15 to 25 characters; lines of several words; prices with other signs than `$`, degrees and the like."""
WIDE_KINDS: Final[dict[TextKind, float]] = {"long": 0.08, "line": 0.06, "currency": 0.04}
"""Of a wide recipe, and their shares."""


class DictionaryNotFoundError(RuntimeError):
    """The dictionary of words is not installed."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no dictionary at {path}: `apt-get install wamerican-huge wamerican-small` "
            "(see model/synth/debian_packages.txt), or pass words of your own"
        )


class NoWordsError(ValueError):
    """A list of words has none that can be drawn, or none for the split."""

    def __init__(self) -> None:
        super().__init__(
            "no words to draw from: one word in twenty is for validation and the others are for training, and only those of "
            "1 to 22 letters from A to Z are drawn"
        )


def read_dictionary(path: Path) -> list[str]:
    """The words of a file with one a line. Raises DictionaryNotFoundError when there is none."""
    if not path.exists():
        raise DictionaryNotFoundError(path)
    return path.read_text(encoding="utf-8").split()


def is_validation_word(word: str) -> bool:
    """Whether a word belongs to the validation split, whatever its case."""
    return is_validation(word, VALIDATION_PER_MILLE)


class Corpus:
    """Samples texts for one split; the words of the two splits are disjoint.

    `large` and `common` are word lists (default: Debian's dictionaries); what is not purely of letters is
    ignored. `kinds` are the texts that are drawn besides, `extra` the characters beyond printable ASCII that they may
    hold. Raises ValueError when no word is left.
    """

    def __init__(
        self,
        split: Split,
        large: Iterable[str] | None = None,
        common: Iterable[str] | None = None,
        *,
        kinds: Mapping[TextKind, float] | None = None,
        extra: str = "",
    ) -> None:
        wanted = split == "validation"
        large = read_dictionary(LARGE_DICTIONARY) if large is None else large
        common = read_dictionary(COMMON_DICTIONARY) if common is None else common

        def ours(words: Iterable[str]) -> list[str]:
            return [w for w in words if _WORD.fullmatch(w) and is_validation_word(w) == wanted]

        self._signs = ours(SIGN_WORDS)
        self._large = _WordPool(ours(large))
        self._common = _WordPool(ours(common))
        self._spaces = " " in extra
        self._marks = "".join(c for c in extra if c in phrases.SIGNS) * 4 + "".join(c for c in extra if c in phrases.MARKS)
        possible: dict[TextKind, bool] = {"long": True, "line": self._spaces, "currency": bool(self._marks)}
        self._kinds = {kind: share for kind, share in (kinds or {}).items() if possible[kind]}

    def sample(self, rng: Rng) -> str:
        """One text of 1 to 25 characters of CHARSET."""
        while True:
            text = self._draw(rng)
            if 1 <= len(text) <= MAX_LENGTH:
                return text

    def _draw(self, rng: Rng) -> str:
        kind = self._other_kind(rng)
        if kind is not None:
            return self._of_kind(kind, rng)
        share = rng.random()
        if share < _WORD_SHARE:
            return self._decorated_word(rng)
        if share < _WORD_SHARE + _FIGURE_SHARE:
            return figures.sample(rng, self._word)
        return random_string(rng)

    def _other_kind(self, rng: Rng) -> TextKind | None:
        share = rng.random() if self._kinds else 1.0
        for kind, kind_share in self._kinds.items():
            if share < kind_share:
                return kind
            share -= kind_share
        return None

    def _of_kind(self, kind: TextKind, rng: Rng) -> str:
        if kind == "long":
            return phrases.long_text(rng, self._word, spaces=self._spaces)
        if kind == "line":
            return phrases.line(rng, self._word)
        return phrases.currency(rng, self._marks, spaces=self._spaces)

    def _word(self, rng: Rng) -> str:
        share = rng.random()
        if share < _SIGN_SHARE:
            return pick(rng, self._signs)
        pool = self._common if share < _SIGN_SHARE + _COMMON_SHARE else self._large
        return pool.sample(rng)

    def _decorated_word(self, rng: Rng) -> str:
        word = in_some_case(rng, self._word(rng), upper=0.30, capitalised=0.55)
        if rng.random() > 0.2:
            return word
        return pick(rng, _DECORATIONS)(word, partial(self._word, rng))


class _WordPool:
    """Words by length, drawn so that the short ones are frequent."""

    def __init__(self, words: Sequence[str]) -> None:
        if not words:
            raise NoWordsError
        by_length: dict[int, list[str]] = {}
        for word in sorted(set(words)):
            if len(word) < len(_LENGTH_WEIGHTS):
                by_length.setdefault(len(word), []).append(word)
        self._buckets = [by_length[length] for length in sorted(by_length)]
        weights = np.array([_LENGTH_WEIGHTS[length] for length in sorted(by_length)])
        self._cumulative = np.cumsum(weights / weights.sum())

    def sample(self, rng: Rng) -> str:
        index = int(np.searchsorted(self._cumulative, rng.random()))
        return pick(rng, self._buckets[min(index, len(self._buckets) - 1)])


def random_string(rng: Rng) -> str:
    """Any printable characters, 1 to 25 of them and mostly few."""
    length = min(1 + int(rng.geometric(0.16)), MAX_LENGTH) if rng.random() < 0.95 else 1
    if rng.random() < 0.06:
        length = int(rng.integers(1, MAX_LENGTH + 1))
    return "".join(CHARSET[i] for i in rng.integers(len(CHARSET), size=length))


Decoration = Callable[[str, Callable[[], str]], str]


def _suffix(mark: str) -> Decoration:
    return lambda word, _: word + mark


def _around(opening: str, closing: str) -> Decoration:
    return lambda word, _: opening + word + closing


def _joined(mark: str) -> Decoration:
    def join(word: str, another: Callable[[], str]) -> str:
        other = another()
        return word + mark + (other.upper() if word.isupper() else other.lower())

    return join


def _possessive(word: str, _: Callable[[], str]) -> str:
    return word + ("'S" if word.isupper() and len(word) > 1 else "'s")


_DECORATIONS: Final[tuple[Decoration, ...]] = (
    *[_suffix(mark) for mark in ",,,,....!!!??::;"],
    _suffix("..."),
    _suffix("*"),
    _suffix('"'),
    _suffix("'"),
    _suffix(")"),
    *[_possessive] * 5,
    *[_joined("-")] * 4,
    _joined("&"),
    _joined("/"),
    _joined("."),
    _joined("_"),
    _joined("+"),
    _around("#", ""),
    _around("@", ""),
    _around("-", ""),
    _around("*", "*"),
    _around("~", "~"),
    _around("(", ""),
    _around('"', ""),
    *[_around("(", ")")] * 2,
    *[_around('"', '"')] * 2,
    _around("'", "'"),
    _around("[", "]"),
    _around("{", "}"),
    _around("<", ">"),
    _around("&", ""),
)
