"""From the labels that a data set holds to those that a network can be asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from model.charsets import CharsetAdapter
from model.data.alterations import Alterations
from model.data.spelling import Spelling, speller


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
    """Spell what the charset lacks in what it has: `é` as `e`. What it has stays as it is."""
    keep_whitespace: bool | None = None
    """Keep single spaces between words; without it as the charset says: spaces are kept where it has the space."""
    letters: bool = True
    """Whether labels may hold letters (of data sets whose labels do not tell the case, only those without are used)."""
    keep_empty: bool = False
    """Use labels with nothing in them: a crop that shows no text. Those of which nothing is left are not used either way."""

    def spell(self, label: str) -> str:
        """`label` in the charset: what the charset has as it is, the rest spelt otherwise or left out."""
        return self.spelling(label).text

    def spelling(self, label: str) -> Spelling:
        """`label` in the charset, with what it lost."""
        return speller(self.charset, self.normalise_unicode, self.keep_whitespace).spell(label)

    def __call__(self, label: str, alterations: Alterations | None = None) -> str | None:
        """`label` as it is to be read; None if nothing is left of it, or more than the network can read.

        What it loses is counted in `alterations`, unless the label is not used for another reason.
        """
        if is_empty(label):
            return "" if self.keep_empty else None
        spelling = self.spelling(label)
        text = spelling.text
        if not self.letters and text.upper() != text.lower():
            return None
        if len(text) > self.max_label_length:
            return None
        if alterations is not None:
            alterations.add(spelling)
        return text or None

    def positions(self, label: str) -> list[int]:
        """Where in `label` (ASCII, without whitespace) the characters stand that `spell` keeps."""
        adapt = CharsetAdapter(self.charset)
        return [index for index, character in enumerate(label) if adapt(character)]


def add_label_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how labels are spelt: those of `LabelRules` that have the same names."""
    parser.add_argument(
        "--normalise-unicode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="spell characters that the charset lacks in ASCII, é as e (default: yes)",
    )
    parser.add_argument(
        "--keep-whitespace",
        action=argparse.BooleanOptionalAction,
        help="keep spaces in labels (default: if the charset has the space)",
    )
    parser.add_argument(
        "--keep-empty",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="use crops whose label is empty: they show no text (default: leave them out)",
    )
