"""What labels lose to a charset, counted and told by name."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from model.data.spelling import Spelling

SHOWN: Final = 10
"""Characters that are listed; of the rest only the number is told."""
Item = TypeVar("Item")


@dataclass
class Alterations:
    """The characters that the labels of a data set lost to a charset, or that became others."""

    losing: int = 0
    """Labels that lost characters."""
    folding: int = 0
    """Labels with characters that became others."""
    lost: Counter[str] = field(default_factory=Counter)
    folded: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, spelling: Spelling) -> None:
        """Count one label."""
        if spelling.lost:
            self.losing += 1
            self.lost.update(spelling.lost)
        if spelling.folded:
            self.folding += 1
            self.folded.update(spelling.folded)

    def characters(self) -> list[str]:
        """The characters that a charset would need to keep all labels as they are: first those that were lost, by frequency."""
        # A letter and its mark may have become another together: they are two characters.
        folded = [character for (letter, _), _ in self.folded.most_common() for character in letter]
        return list(dict.fromkeys([character for character, _ in self.lost.most_common()] + folded))

    def __str__(self) -> str:
        """What was lost and what became others, in one line; empty if nothing was."""
        told = []
        if self.lost:
            told.append(f"{_labels(self.losing)} lost characters that the charset has not: {_listed(self.lost, _named)}")
        if self.folded:
            told.append(f"{_labels(self.folding)} had characters folded: {_listed(self.folded, _arrow)}")
        return "; ".join(told)


def add_option(characters: Iterable[str]) -> str:
    """The option of `parseq-train` that adds these characters, as it is written in a shell; of many, only the first."""
    found = list(characters)
    shown = found[:SHOWN]
    # A terminal does not show invisible characters, nor to which letter a mark belongs.
    plain = all(_visible(character) and character not in "'\\" for character in shown)
    word = f"'{''.join(shown)}'" if plain else f"$'{''.join(map(_escaped, shown))}'"
    others = f" and {len(found) - SHOWN} others, or --charset FILE with all characters" if len(found) > SHOWN else ""
    return f"--add-characters {word}{others}"


def _listed(counts: Counter[Item], name: Callable[[Item], str]) -> str:
    told = [f"{name(item)} {'once' if count == 1 else f'{count} times'}" for item, count in counts.most_common(SHOWN)]
    others = len(counts) - len(told)
    return ", ".join(told) + (f" and {others} others" if others else "")


def _named(character: str) -> str:
    name = unicodedata.name(
        character, "(a control character)" if unicodedata.category(character) == "Cc" else "(without a name)"
    )
    return f"{_quoted(character)} U+{ord(character):04X} {name}"


def _arrow(fold: tuple[str, str]) -> str:
    return "->".join(map(_quoted, fold))


def _labels(count: int) -> str:
    return f"{count} label" if count == 1 else f"{count} labels"


def _quoted(text: str) -> str:
    return repr(text) if all(map(_visible, text)) else f"'{''.join(map(_escaped, text))}'"


def _visible(character: str) -> bool:
    return character.isprintable() and not unicodedata.category(character).startswith("M")


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if _visible(character):
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
