"""From the labels that a data set holds to those that a network can be asked for."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from model.charsets import CharsetAdapter


def clean_label(label: str, charset: str, *, normalise_unicode: bool, keep_whitespace: bool | None = None) -> str:
    """A label without whitespace (with single spaces where the charset has the space), and in ASCII what the charset lacks."""
    keeps = " " in charset if keep_whitespace is None else keep_whitespace
    text = (" " if keeps else "").join(label.split())
    if not normalise_unicode or text.isascii():
        return text
    kept = {form for character in charset for form in (character, character.lower(), character.upper())}
    # Composed first, so that a letter with its accent is one character, which the charset has or has not.
    return "".join(
        character if character in kept else unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        for character in unicodedata.normalize("NFC", text)
    )


def is_empty(label: str) -> bool:
    """Whether a label says that the crop shows no text: it holds nothing, or only whitespace."""
    return not label.strip()


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Which labels are used, and how they are spelt."""

    charset: str
    """What a label may hold."""
    max_label_length: int
    """The longest label to use, in characters, after it is spelt."""
    normalise_unicode: bool = True
    """Spell what the charset lacks in ASCII where Unicode says how (NFKD): `é` as `e`. What it has stays as it is."""
    keep_whitespace: bool | None = None
    """Keep single spaces between words; without it as the charset says: spaces are kept where it has the space."""
    letters: bool = True
    """Whether labels may hold letters (of data sets whose labels do not tell the case, only those without are used)."""
    keep_empty: bool = False
    """Use labels with nothing in them: a crop that shows no text. Those of which nothing is left are not used either way."""

    def spell(self, label: str) -> str:
        """`label` in the charset: spelt in ASCII, in the charset's case, without what the charset lacks."""
        text = clean_label(label, self.charset, normalise_unicode=self.normalise_unicode, keep_whitespace=self.keep_whitespace)
        return CharsetAdapter(self.charset)(text)

    def __call__(self, label: str) -> str | None:
        """`label` as it is to be read; None if nothing is left of it, or more than the network can read."""
        if is_empty(label):
            return "" if self.keep_empty else None
        text = self.spell(label)
        if not self.letters and text.upper() != text.lower():
            return None
        return text if 0 < len(text) <= self.max_label_length else None

    def positions(self, label: str) -> list[int]:
        """Where in `label` (ASCII, without whitespace) the characters stand that `spell` keeps."""
        adapt = CharsetAdapter(self.charset)
        return [index for index, character in enumerate(label) if adapt(character)]
