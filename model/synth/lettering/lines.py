"""Flat text: glyph by glyph on a mask, remembering the centre of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.synth.lettering.fonts import Face


@dataclass(frozen=True)
class Lettering:
    """A line of text laid out in pixels, its ink starting at (0, 0)."""

    text: str
    font: ImageFont.FreeTypeFont
    origins: list[float]
    """x of the pen for each character."""
    top: float
    """y of the line's top relative to the ink's."""
    box: tuple[float, float]
    """Width and height of the ink."""
    centers: NDArray[np.float64]
    """Centre of each glyph's ink, (len(text), 2)."""

    def draw(self, canvas: Image.Image, at: tuple[float, float], stroke: int = 0) -> None:
        """Draw white on an "L" canvas, the ink's upper left corner at `at`; thickened by `stroke` pixels."""
        pen = ImageDraw.Draw(canvas)
        x, y = at[0], at[1] + self.top
        for origin, character in zip(self.origins, self.text, strict=True):
            pen.text((x + origin, y), character, fill=255, font=self.font, stroke_width=stroke)


@lru_cache(maxsize=100_000)
def ink_box(font: ImageFont.FreeTypeFont, character: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a glyph's ink relative to the pen.

    `font.getbbox` would reach from the pen to the next and down to the baseline: for a hyphen, mostly air.
    """
    mask, offset = font.getmask2(character, mode="L")
    ink = mask.getbbox()
    if ink is None:
        return font.getbbox(character)
    return offset[0] + ink[0], offset[1] + ink[1], offset[0] + ink[2], offset[1] + ink[3]


def lay_out(text: str, face: Face, size: int, spacing: float = 0.0) -> Lettering:
    """Lay out `text` with the face's kerning at `size` pixels per em and `spacing` em between letters."""
    font = face.font(size)
    # The advance of a prefix carries its kerning; the next glyph starts there.
    pens = [font.getlength(text[:i]) + i * spacing * size for i in range(len(text))]
    boxes = np.array([ink_box(font, character) for character in text], np.float64)
    boxes[:, 0::2] += np.array(pens)[:, None]
    inked = boxes[[character != " " for character in text]]
    left, top = inked[:, 0].min(), inked[:, 1].min()
    right, bottom = inked[:, 2].max(), inked[:, 3].max()
    # A space has no ink: its centre is in the middle of the line.
    boxes[[character == " " for character in text], 1::2] = top, bottom
    centers = np.stack([boxes[:, 0::2].mean(axis=1) - left, boxes[:, 1::2].mean(axis=1) - top], axis=1)
    origins = [float(pen - left) for pen in pens]
    return Lettering(text, font, origins, float(-top), (float(right - left), float(bottom - top)), centers)
