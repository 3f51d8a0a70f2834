"""The character sets of the scene-text benchmarks."""

import string
from pathlib import Path
from typing import Final

from model.errors import ConfigError

DIGITS_AND_LOWERCASE: Final = string.digits + string.ascii_lowercase
"""36 characters: case-insensitive alphanumeric."""
ALPHANUMERIC: Final = DIGITS_AND_LOWERCASE + string.ascii_uppercase
"""62 characters: case-sensitive alphanumeric."""
PRINTABLE: Final = ALPHANUMERIC + string.punctuation
"""94 characters: printable ASCII without the space. The order fixes the token ids of the released weights."""

SIGNS_BESIDES: Final = " £€¥°©®§"
"""What the bundled model reads besides: the space, and signs of prices and packages."""

CHARSETS: Final = {"36": DIGITS_AND_LOWERCASE, "62": ALPHANUMERIC, "94": PRINTABLE}


def read_charset(name: str) -> str:
    """A standard set by its size, or all characters of a text file but line breaks, in order of first appearance.

    Raises:
        ConfigError: There is no such set or file.
    """
    if name in CHARSETS:
        return CHARSETS[name]
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the charset {name!r} is none of {', '.join(CHARSETS)}, nor a UTF-8 text file") from None
    return "".join(dict.fromkeys(text.replace("\n", "").replace("\r", "")))


class CharsetAdapter:
    """Maps any text onto a target character set, as the benchmarks score.

    Folds the case if the target has only one, and drops what the target lacks. The case is folded character by character, so
    that a capital sigma becomes the same small one wherever it stands. What the target has stays as it is. A character whose
    other case is several, as `ß`, does not decide which case a target has.
    """

    def __init__(self, target_charset: str) -> None:
        """Prepare the mapping onto `target_charset`."""
        self.allowed = frozenset(target_charset)
        self.fold_to_lower = all(len(c.lower()) > 1 or c.lower() == c for c in target_charset)
        self.fold_to_upper = all(len(c.upper()) > 1 or c.upper() == c for c in target_charset)
        self._other_case = _single({c: c.upper() for c in target_charset} if self.fold_to_lower else {})
        self._other_case |= _single({c: c.lower() for c in target_charset} if self.fold_to_upper else {})
        self.known = self.allowed | self._other_case.keys()
        """Characters that are mapped onto one of the target's."""
        self._mapped: dict[str, str] = {}

    def fold(self, character: str) -> str:
        """`character` in the target's case: one or, as of `ß`, several characters; itself where the target has both cases."""
        if character in self.allowed:
            return character
        folded = character.lower() if self.fold_to_lower else character.upper() if self.fold_to_upper else character
        if folded not in self.allowed and character in self._other_case:
            return self._other_case[character]
        return folded

    def __call__(self, text: str) -> str:
        """Return `text` folded to the target's case, without the characters that the target lacks."""
        if self.allowed.issuperset(text):
            return text
        return "".join(map(self._map, text))

    def _map(self, character: str) -> str:
        mapped = self._mapped.get(character)
        if mapped is None:
            mapped = self._mapped[character] = "".join(c for c in self.fold(character) if c in self.allowed)
        return mapped


def _single(forms: dict[str, str]) -> dict[str, str]:
    """Other forms of characters to the characters, the first of each, where a form is a single character."""
    return {form: character for character, form in reversed(forms.items()) if len(form) == 1 and form != character}
