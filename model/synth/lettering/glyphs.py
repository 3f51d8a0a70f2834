"""What a face draws for each character, and what can be told from it."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Collection
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.charsets import PRINTABLE
from model.synth.words.phrases import MARKS, SIGNS

Template = NDArray[np.float32]

DRAWABLE: Final = PRINTABLE + SIGNS + MARKS
"""The characters that are looked for in a face."""
_UNASSIGNED: Final = ("\u0378", "\ufffe", "\U000e0fff")
_TEMPLATE: Final = 20
# Letters whose small form has another shape than the capital; c, o, s, v, w, x and z say nothing.
_TELLING: Final = "abdefghijlmnqrt"
_X_HEIGHT: Final = "aenru"
_ASCENDING: Final = "bdhl"
_DESCENDING: Final = "gpqy"


class GlyphSheet:
    """The ink of one face at a fixed size. Raises OSError or ValueError where FreeType cannot draw."""

    SIZE = 40
    _CANVAS = 4 * SIZE

    def __init__(self, font: ImageFont.FreeTypeFont) -> None:
        missing = {self._ink(font, code)[0] for code in _UNASSIGNED}
        self._bitmaps: dict[str, bytes] = {}
        self._boxes: dict[str, tuple[int, int, int, int]] = {}
        self._templates: dict[str, Template] = {}
        for character in DRAWABLE:
            bitmap, box, template = self._ink(font, character)
            # A face without a glyph draws the same box (or nothing) as for a code point nobody has.
            if box is None or bitmap in missing:
                continue
            self._bitmaps[character] = bitmap
            self._boxes[character] = box
            self._templates[character] = template

    @property
    def characters(self) -> str:
        """The characters with a glyph of their own, in the order of DRAWABLE."""
        return "".join(self._bitmaps)

    def distinct(self, characters: Collection[str]) -> int:
        """How many different drawings the `characters` have."""
        return len({self._bitmaps[c] for c in characters})

    def digest(self) -> str:
        """Equal for two faces that draw letters and digits alike."""
        letters = string.digits + string.ascii_letters
        return hashlib.sha256(b"|".join(self._bitmaps.get(c, b"") for c in letters)).hexdigest()

    def small_letters_are_capitals(self) -> bool:
        """Whether lower case is drawn as capitals: small capitals, unicase, or the capitals once more."""
        alike = sum(_likeness(self._templates[c], self._templates[c.upper()]) > 0.8 for c in _TELLING)
        return alike >= 4 or self._small_letters_stand_level()

    def capitals_are_capitals(self) -> bool:
        """Whether nearly all capitals look more like plain capitals than like plain small letters."""
        capitals = self._match(_TELLING.upper(), _TELLING.upper())
        smalls = self._match(_TELLING.upper(), _TELLING)
        return int((np.diag(capitals) > np.diag(smalls)).sum()) >= len(_TELLING) - 3

    def legibility(self, *, with_small: bool) -> float:
        """Share of characters that resemble the plain form of themselves more than those of most others."""
        groups = [string.ascii_uppercase + string.digits]
        if with_small:
            groups.append(string.ascii_lowercase)
        good = sum(self._recognised(group) for group in groups)
        return good / sum(map(len, groups))

    def _recognised(self, group: str) -> int:
        best = self._match(group, group)
        rank = (best > np.diag(best)[:, None]).sum(axis=1)
        return int((rank < 2).sum())

    def _match(self, characters: str, plain: str) -> Template:
        """Likeness of each of our `characters` (rows) to each `plain` one (columns)."""
        ours = np.stack([self._templates[c].ravel() for c in characters])
        return np.asarray(np.max([ours @ forms.T for forms in _plain_templates(plain)], axis=0))

    def _small_letters_stand_level(self) -> bool:
        def height(letters: str) -> float:
            return float(np.median([self._boxes[c][3] - self._boxes[c][1] for c in letters]))

        def bottom(letters: str) -> float:
            return float(np.median([self._boxes[c][3] for c in letters]))

        level = height(_X_HEIGHT) > 0.93 * height(_ASCENDING)
        return level and bottom(_DESCENDING) - bottom(_X_HEIGHT) < 0.08 * self.SIZE

    def _ink(self, font: ImageFont.FreeTypeFont, character: str) -> tuple[bytes, tuple[int, int, int, int] | None, Template]:
        canvas = Image.new("L", (self._CANVAS, self._CANVAS))
        ImageDraw.Draw(canvas).text((self.SIZE, self.SIZE), character, fill=255, font=font)
        box = canvas.getbbox()
        if box is None:
            return b"", None, np.zeros((_TEMPLATE, _TEMPLATE), np.float32)
        ink = canvas.crop(box)
        return bytes(str(ink.size), "ascii") + ink.tobytes(), box, _template(ink)


def _template(ink: Image.Image) -> Template:
    """The glyph in a square, without its mean and of unit norm: a dot product is a likeness in [-1, 1]."""
    small = np.asarray(ink.resize((_TEMPLATE, _TEMPLATE), Image.Resampling.BOX), np.float32)
    # Thin strokes of two faces never coincide exactly; a little blur lets them meet.
    padded = np.pad(small, 1)
    windows = [padded[dy : dy + _TEMPLATE, dx : dx + _TEMPLATE] for dy in range(3) for dx in range(3)]
    soft = np.mean(windows, axis=0)
    centred = soft - soft.mean()
    norm = float(np.linalg.norm(centred))
    return np.asarray(centred / max(norm, 1e-6), np.float32)


def _likeness(one: Template, other: Template) -> float:
    return float((one * other).sum())


@cache
def _plain_templates(group: str) -> tuple[Template, ...]:
    """Templates of plain letters: Pillow's own face, upright and (as a stand-in for italics) slanted."""
    font = ImageFont.load_default(GlyphSheet.SIZE)
    upright, slanted = [], []
    for character in group:
        canvas = Image.new("L", (120, 120))
        ImageDraw.Draw(canvas).text((40, 40), character, fill=255, font=font)
        slant = canvas.transform(canvas.size, Image.Transform.AFFINE, (1, 0.25, -15, 0, 1, 0))
        upright.append(_template(canvas.crop(canvas.getbbox())).ravel())
        slanted.append(_template(slant.crop(slant.getbbox())).ravel())
    return np.stack(upright), np.stack(slanted)
