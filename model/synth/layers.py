"""The layers of flat lettering: ink, outline, shadow and scraps of other text, as coverages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from model.synth.lettering import Lettering

Rng = np.random.Generator

ROOM = 28
"""Pixels around the ink of the flat text, for strokes, shadows and neighbours."""


def draw_layers(line: Lettering, rng: Rng, *, hard: bool) -> Image.Image:
    """Four coverages in one image, so that one warp moves them all: ink, outline, shadow, neighbouring text.

    The mode is CMYK only for its four plain channels (RGBA would be premultiplied by its last).
    """
    size = (int(np.ceil(line.box[0])) + 2 * ROOM, int(np.ceil(line.box[1])) + 2 * ROOM)
    blank = Image.new("L", size)
    ink = _drawn(line, size, 1 if rng.random() < 0.18 else 0)
    outline = shadow = others = blank
    if rng.random() < (0.22 if hard else 0.06):
        outline = _drawn(line, size, int(rng.integers(1, 4)))
    if rng.random() < (0.25 if hard else 0.08):
        shadow = _shadow_of(ink, rng)
    if rng.random() < (0.35 if hard else 0.15):
        others = _neighbours(line, blank.copy(), rng)
    return Image.merge("CMYK", (ink, outline, shadow, others))


def _drawn(line: Lettering, size: tuple[int, int], stroke: int) -> Image.Image:
    canvas = Image.new("L", size)
    line.draw(canvas, (ROOM, ROOM), stroke)
    return canvas


def _shadow_of(ink: Image.Image, rng: Rng) -> Image.Image:
    offset = (int(rng.integers(-4, 5)), int(rng.integers(-3, 5)))
    shadow = Image.new("L", ink.size)
    shadow.paste(ink, offset)
    return shadow.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3)))) if rng.random() < 0.6 else shadow


def _neighbours(line: Lettering, canvas: Image.Image, rng: Rng) -> Image.Image:
    """Scraps of the lines above and below or of the words beside, peeking in where the crop ends."""
    width, height = line.box
    em = line.font.size
    gap = rng.uniform(0.12, 0.4) * em
    letters = "".join(line.text[int(i)] for i in rng.integers(len(line.text), size=len(line.text) + 3))
    pens = [float(x) for x in np.linspace(-0.4 * em, width + 0.2 * em, len(letters))]
    scrap = replace(line, text=letters, origins=pens)
    side = rng.random()
    if side < 0.4:
        scrap.draw(canvas, (ROOM, ROOM - height - gap))
    if 0.25 < side < 0.7:
        scrap.draw(canvas, (ROOM, ROOM + height + gap))
    if side > 0.6:
        apart = rng.uniform(0.25, 0.5) * em
        shift = width + apart if rng.random() < 0.5 else -(width + apart)
        line.draw(canvas, (ROOM + shift, ROOM))
    return canvas
