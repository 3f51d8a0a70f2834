"""Labels spelt in the characters of a charset, with an account of what they lose.

Unicode writes many characters in more than one way: as one code point or as a letter with its marks, and none of its normal
forms has all that data sets use (Devanagari's U+0958 is in no normal form). So a label is not brought into one of them: what
the charset has stays as it is, and what it lacks is written in the way that the charset has, if there is one (canonical
equivalence, Unicode Standard Annex 15). Only what remains is folded: compatibility characters such as ligatures and full-width
letters into plain ones, letters to their base. What then remains is lost.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from model.charsets import CharsetAdapter

LONGEST_SEGMENT: Final = 32
"""Of a letter and its marks, in code points: a bound for hostile text (UAX 15, "Stream-Safe Text Format")."""
MOST_REMEMBERED: Final = 2**16
_GAPS: Final = re.compile(r"(\s+)")


@dataclass(frozen=True, slots=True)
class Spelling:
    """A label, or a part of one, in the characters of a charset."""

    whole: str
    """Before it is mapped onto the charset: with the label's case, and with ASCII that the charset lacks."""
    text: str
    """In the charset."""
    lost: tuple[str, ...] = ()
    """Characters of the label of which nothing is left."""
    folded: tuple[tuple[str, str], ...] = ()
    """Characters that became others, and those. The case of a charset that has only one is not counted."""

    @property
    def altered(self) -> bool:
        """Whether the text says less than the label."""
        return bool(self.lost or self.folded)


class _Equivalent(NamedTuple):
    """A canonical equivalent in a charset, and what the charset lacks of it, decomposed."""

    text: str
    lost: str


class Speller:
    """Spells labels in a charset."""

    def __init__(self, charset: str, normalise_unicode: bool = True, keep_whitespace: bool | None = None) -> None:
        """Prepare spelling.

        Args:
            charset: The characters to use.
            normalise_unicode: Write characters that the charset lacks in others; if not they are dropped.
            keep_whitespace: Keep single spaces between words; without it as the charset says.
        """
        self.normalise_unicode, self.keep_whitespace = normalise_unicode, keep_whitespace
        self.adapt = CharsetAdapter(charset)
        self._nothing_to_do = frozenset(character for character in self.adapt.known if not character.isspace())
        # The charset's characters that are a letter and marks in one, by the letter.
        self._composed: dict[str, list[tuple[str, str]]] = {}
        for character in sorted(self.adapt.known):
            parts = unicodedata.normalize("NFD", character)
            if parts != character:
                self._composed.setdefault(parts[0], []).append((character, parts))
        # Such as the two forms of sigma, where the charset has one of them.
        self._twins = {(c.casefold(), c.islower()): c for c in reversed(charset)}
        self._remembered: dict[str, Spelling] = {}

    def spell(self, label: str) -> Spelling:
        """`label` without whitespace around it, in the charset."""
        text = label.strip()
        if self._nothing_to_do.issuperset(text):
            return Spelling(text, self.adapt(text))
        return _join(
            part
            for index, run in enumerate(_GAPS.split(text))
            for part in ([self._gap(run)] if index % 2 else map(self._piece, segments(run)))
        )

    def read(self, text: str) -> str:
        """What a model has read, in the charset: as `spell`, but its whitespace counts."""
        return text if self.adapt.allowed.issuperset(text) else "".join(self._piece(part).text for part in segments(text))

    def _gap(self, run: str) -> Spelling:
        """What stands for whitespace between words."""
        space = next((character for character in run if character in self.adapt.allowed), " ")
        if self.keep_whitespace is False:
            return Spelling("", "")
        if space in self.adapt.allowed:
            return Spelling(space, space)
        return Spelling(" " if self.keep_whitespace else "", "", (" ",))

    def _piece(self, segment: str) -> Spelling:
        found = self._remembered.get(segment)
        if found is None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[segment] = self._spell_segment(segment)
        return found

    def _spell_segment(self, segment: str) -> Spelling:
        if all(map(self._has, segment)):
            return Spelling(segment, self.adapt(segment))
        composed = segment if len(segment) == 1 else unicodedata.normalize("NFC", segment)
        whole = segment
        if self.normalise_unicode:
            equivalent = self._equivalent(segment)
            if not equivalent.lost:
                return Spelling(equivalent.text, self.adapt(equivalent.text))
            plain = self._plain(segment)
            if plain is not None:
                text = self.adapt(plain)
                return Spelling(plain, text, folded=((composed, text),))
            whole = self._best_left(segment, equivalent)
        text = self.adapt(whole)
        if len(composed) > 1:
            # Told character by character.
            parts = [self._piece(character) for character in composed]
            told = _join(parts)
            return Spelling(whole, text, told.lost, told.folded)
        return Spelling(whole, text, folded=((composed, text),)) if text else Spelling(whole, "", (composed,))

    def _has(self, character: str) -> bool:
        """Whether the charset has it, or has it in another case."""
        return character in self.adapt.known or self.adapt.allowed.issuperset(self.adapt.fold(character))

    def _plain(self, segment: str) -> str | None:
        """A ligature or the like in plain characters, or a sigma in its other form, if the charset has all of it."""
        plain = "".join(unicodedata.normalize("NFKC", segment).split())
        if plain and plain != unicodedata.normalize("NFC", segment):
            parts = [_Equivalent(part, "") if all(map(self._has, part)) else self._equivalent(part) for part in segments(plain)]
            if not any(part.lost for part in parts):
                return "".join(part.text for part in parts)
        return self._twins.get((segment.casefold(), segment.islower()))

    def _best_left(self, segment: str, equivalent: _Equivalent) -> str:
        """What the charset has of a segment that it has not as a whole."""
        kept = "".join(filter(self._has, segment))
        missed = sum(len(unicodedata.normalize("NFD", character)) for character in segment if not self._has(character))
        if len(equivalent.lost) < missed:
            kept = equivalent.text
        # ASCII stays, for a label's length is told before the charset drops anything.
        return kept or "".join(
            c for c in unicodedata.normalize("NFKD", segment) if not c.isspace() and (c.isascii() or self._has(c))
        )

    def _equivalent(self, segment: str) -> _Equivalent:
        """`segment` written with the charset's characters, those that hold marks first; and what that leaves."""
        left = list(unicodedata.normalize("NFD", segment))
        written, lost = [], []
        while left:
            choices = [(left[0], left[1:])] if self._has(left[0]) else []
            for character, parts in self._composed.get(left[0], ()):
                rest = _without(left, parts)
                if rest is not None and unicodedata.normalize("NFD", character + "".join(rest)) == "".join(left):
                    choices.append((character, rest))
            if choices:
                character, left = min(choices, key=lambda choice: (sum(not self._has(c) for c in choice[1]), len(choice[1])))
                written.append(character)
            else:
                lost.append(left.pop(0))
        return _Equivalent("".join(written), "".join(lost))


@lru_cache(maxsize=32)
def speller(charset: str, normalise_unicode: bool = True, keep_whitespace: bool | None = None) -> Speller:
    """The one speller of its kind: it remembers what it has spelt."""
    return Speller(charset, normalise_unicode, keep_whitespace)


def segments(text: str) -> Iterator[str]:
    """`text` cut where Unicode's composition cannot reach across: letters with their marks, syllables with their parts."""
    if text.isascii():
        yield from text
        return
    start = 0
    for index in range(1, len(text)):
        before, character = text[start:index], text[index]
        if len(before) >= LONGEST_SEGMENT or not (unicodedata.combining(character) or _joins(before, character)):
            yield before
            start = index
    yield text[start:]


def _joins(before: str, character: str) -> bool:
    def compose(text: str) -> str:
        # Half-width letters are joined with their mark in this form alone.
        return unicodedata.normalize("NFKC", text)

    return not character.isascii() and compose(before + character) != compose(before) + compose(character)


def _without(characters: list[str], parts: str) -> list[str] | None:
    """`characters` without `parts`, which stand in it in this order, not necessarily together; None if they do not."""
    rest, found = [], 0
    for character in characters:
        if found < len(parts) and character == parts[found]:
            found += 1
        else:
            rest.append(character)
    return rest if found == len(parts) else None


def _join(parts: Iterable[Spelling]) -> Spelling:
    found = list(parts)
    return Spelling(
        "".join(part.whole for part in found),
        "".join(part.text for part in found),
        tuple(chain.from_iterable(part.lost for part in found)),
        tuple(chain.from_iterable(part.folded for part in found)),
    )
