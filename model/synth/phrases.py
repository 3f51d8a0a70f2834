"""Texts that a wide recipe draws besides: long ones, lines of several words, and prices in other currencies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
WordSource = Callable[[Rng], str]

MAX_LENGTH = 25
LONG = 15
"""Characters from which a text counts as long."""
SIGNS = "£€¥"
MARKS = "°©®§"
EXTRA_CHARACTERS = " " + SIGNS + MARKS
"""What can be drawn besides printable ASCII: nothing of it unless a recipe asks for it."""
_LINKS = ("", "", "", "", "-", "-", "&", ".", "_", "/")


def long_text(rng: Rng, word: WordSource, *, spaces: bool) -> str:
    """A text of 15 to 25 characters: words run together as in compounds and addresses, or a line of words."""
    link = " " if spaces and rng.random() < 0.3 else _LINKS[int(rng.integers(len(_LINKS)))]
    while True:
        text = in_one_case(rng, word(rng))
        while len(text) < LONG:
            text += link + _like(text, word(rng))
        if len(text) <= MAX_LENGTH:
            return text


def line(rng: Rng, word: WordSource) -> str:
    """Two or three words, or a word and a number, with a space between them; possibly longer than 25 characters."""
    first = in_one_case(rng, word(rng))
    more = 1 if rng.random() < 0.75 else 2
    parts = [first]
    parts += [_like(first, word(rng)) if rng.random() < 0.75 else str(int(rng.integers(1, 1000))) for _ in range(more)]
    if rng.random() < 0.2:
        parts.reverse()
    return " ".join(parts)


def currency(rng: Rng, characters: str, *, spaces: bool) -> str:
    """A price or a mark with one of `characters`, which are of `SIGNS` and `MARKS`."""
    sign = characters[int(rng.integers(len(characters)))]
    whole = str(int(rng.integers(0, 10 ** int(rng.integers(1, 5)))))
    if sign in SIGNS:
        cents = f"{'.,'[int(rng.integers(2))]}{int(rng.integers(100)):02d}" if rng.random() < 0.7 else ""
        gap = " " if spaces and rng.random() < 0.15 else ""
        return whole + cents + gap + sign if rng.random() < 0.3 else sign + gap + whole + cents
    if sign == "°":
        return whole[:3] + "°" + ("", "C", "F", "C")[int(rng.integers(4))]
    return sign + (" " if spaces and rng.random() < 0.3 else "") + whole if sign != "®" else whole + sign


def in_one_case(rng: Rng, word: str) -> str:
    """Upper case, capitalised, or lower case."""
    share = rng.random()
    return word.upper() if share < 0.4 else word[:1].upper() + word[1:].lower() if share < 0.65 else word.lower()


def _like(text: str, word: str) -> str:
    """`word` in the case of `text`."""
    if text.isupper():
        return word.upper()
    return word[:1].upper() + word[1:].lower() if text[:1].isupper() else word.lower()
