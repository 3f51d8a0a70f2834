"""Which entries of a vocabulary may be read, as people ask for them: kinds of characters by name, or characters one by one.

What is asked for is a list with commas between its parts, such as `digits` or `uppercase,digits`. The last part may be `chars:`
with characters behind it, up to the end, commas included: `chars:0123456789` or `digits,chars:.,-`. So no character is taken
for a name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

EXPLICIT: Final = "chars:"
"""What stands before characters that are given one by one."""
MAX_TOLD: Final = 20
"""Characters or letters that a message repeats, at most."""

Allowed = NDArray[np.bool_]
"""bool `[len(vocabulary)]` for one crop, `[batch, len(vocabulary)]` for several: which entries may be read."""


class AllowedError(ValueError):
    """What is asked for cannot be understood; the message names the cause and the cure."""


class UnknownCharactersError(AllowedError):
    """A model does not have the characters that are asked for."""


def _is_letter(char: str) -> bool:
    # Marks are parts of letters: many scripts cannot be written without them.
    return unicodedata.category(char)[0] in "LM"


def _is_digit(char: str) -> bool:
    return unicodedata.category(char) == "Nd"


KINDS: Final[Mapping[str, Callable[[str], bool]]] = {
    "digits": _is_digit,
    "letters": _is_letter,
    "uppercase": str.isupper,
    "lowercase": str.islower,
    "alphanumeric": lambda char: _is_letter(char) or _is_digit(char),
    "punctuation": lambda char: unicodedata.category(char)[0] in "PS",
}
"""Kinds of characters by name, as Unicode sorts them: of a model for several scripts the letters and digits of all of them."""
FORMS: Final = f"{', '.join(KINDS)}, or {EXPLICIT} with characters behind it, such as {EXPLICIT}0123456789"


def parts_of(wanted: str) -> tuple[list[str], str | None]:
    """The names of kinds that are asked for, and the characters; `None`: no characters are given.

    Raises:
        AllowedError: A name is unknown, or there is none and no character either.
    """
    before, explicit, characters = wanted.partition(EXPLICIT)
    if explicit and before and not before.endswith(","):
        raise AllowedError(f"there must be a comma before {EXPLICIT}")
    if explicit and not characters:
        raise AllowedError(f"there is no character behind {EXPLICIT}")
    names = [] if explicit and not before else (before.removesuffix(",") if explicit else before).split(",")
    for name in names:
        if name not in KINDS:
            told = f"`{name[:MAX_TOLD]}`" if name else "nothing"
            raise AllowedError(f"{told} is no kind of characters; there are {FORMS}")
    return list(dict.fromkeys(names)), characters if explicit else None


def entries_of(wanted: str, vocabulary: Sequence[str]) -> Allowed:
    """The entries of a vocabulary that may be read: those all of whose characters are asked for.

    Args:
        wanted: What is asked for.
        vocabulary: Of an artifact or a network: its characters, or symbols of several.

    Raises:
        AllowedError: It cannot be understood.
        UnknownCharactersError: A kind has no character in the vocabulary, or a character is not in it.
    """
    names, characters = parts_of(wanted)
    known = set(vocabulary) if isinstance(vocabulary, str) else {char for entry in vocabulary for char in entry}
    asked = set[str]()
    for name in names:
        of_kind = {char for char in known if KINDS[name](char)}
        if not of_kind:
            raise UnknownCharactersError(f"the model has no {name}")
        asked |= of_kind
    if characters is not None:
        missing = [char for char in dict.fromkeys(characters) if char not in known]
        if missing:
            more = f" and {len(missing) - MAX_TOLD} more" if len(missing) > MAX_TOLD else ""
            told = ", ".join(_told(char) for char in missing[:MAX_TOLD])
            raise UnknownCharactersError(f"the model does not have the characters {told}{more}")
        asked |= set(characters)
    found = np.fromiter((asked.issuperset(entry) for entry in vocabulary), np.bool_, len(vocabulary))
    if not found.any():
        raise UnknownCharactersError("no symbol of the model has only the characters that are asked for")
    return found


def _told(char: str) -> str:
    if char == " ":
        return "space (in an address `+` stands for it, and %2B for a plus)"
    return f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"


def allowed_matrix(rows: Sequence[Allowed | None], entries: int) -> Allowed:
    """What a graph is told for a batch, bool `[batch, entries]`.

    Args:
        rows: Of each crop; `None`: every entry may be read.
        entries: How many there are.
    """
    matrix = np.ones((len(rows), entries), np.bool_)
    for index, row in enumerate(rows):
        if row is not None:
            matrix[index] = row
    return matrix
