"""Texts that a wide recipe draws besides: long ones, lines of several words, and prices in other currencies."""

from __future__ import annotations

from typing import Final

from model.synth.words.chance import Rng, WordSource, in_some_case, pick

MAX_LENGTH: Final = 25
LONG: Final = 15
"""Characters from which a text counts as long."""
SIGNS: Final = "£€¥"
MARKS: Final = "°©®§"
EXTRA_CHARACTERS: Final = " " + SIGNS + MARKS
"""What can be drawn besides printable ASCII: nothing of it unless a recipe asks for it."""
_LINKS: Final = ("", "", "", "", "-", "-", "&", ".", "_", "/")


def long_text(rng: Rng, word: WordSource, *, spaces: bool) -> str:
    """A text of 15 to 25 characters: words run together as in compounds and addresses, or a line of words."""
    link = " " if spaces and rng.random() < 0.3 else pick(rng, _LINKS)
    while True:
        text = _in_some_case(rng, word(rng))
        while len(text) < LONG:
            text += link + _like(text, word(rng))
        if len(text) <= MAX_LENGTH:
            return text


def line(rng: Rng, word: WordSource) -> str:
    """Two or three words, or a word and a number, with a space between them; possibly longer than 25 characters."""
    first = _in_some_case(rng, word(rng))
    more = 1 if rng.random() < 0.75 else 2
    parts = [first]
    parts += [_like(first, word(rng)) if rng.random() < 0.75 else str(int(rng.integers(1, 1000))) for _ in range(more)]
    if rng.random() < 0.2:
        parts.reverse()
    return " ".join(parts)


def currency(rng: Rng, characters: str, *, spaces: bool) -> str:
    """A price or a mark with one of `characters`, which are of `SIGNS` and `MARKS`."""
    sign = pick(rng, characters)
    whole = str(int(rng.integers(0, 10 ** int(rng.integers(1, 5)))))
    if sign in SIGNS:
        cents = f"{pick(rng, '.,')}{int(rng.integers(100)):02d}" if rng.random() < 0.7 else ""
        gap = " " if spaces and rng.random() < 0.15 else ""
        return whole + cents + gap + sign if rng.random() < 0.3 else sign + gap + whole + cents
    if sign == "°":
        return whole[:3] + "°" + pick(rng, ("", "C", "F", "C"))
    return sign + (" " if spaces and rng.random() < 0.3 else "") + whole if sign != "®" else whole + sign


def _in_some_case(rng: Rng, word: str) -> str:
    return in_some_case(rng, word, upper=0.4, capitalised=0.65)


def _like(text: str, word: str) -> str:
    """`word` in the case of `text`."""
    if text.isupper():
        return word.upper()
    return word.capitalize() if text[:1].isupper() else word.lower()
