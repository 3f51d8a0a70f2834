"""The layers of flat lettering: ink, outline, shadow and scraps of other text, as coverages."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from model.synth.lettering.lines import Lettering

Rng = np.random.Generator

ROOM: Final = 28
"""Pixels around the ink of the flat text, for strokes, shadows and neighbours."""


def draw_layers(line: Lettering, rng: Rng, *, hard: bool, wide: bool = False) -> Image.Image:
    """Four coverages in one image, so that one warp moves them all: ink, outline, shadow, neighbouring text.

    The mode is CMYK only for its four plain channels (RGBA would be premultiplied by its last). With `wide` letters may also be
    hollow, dotted, striped, extruded or stamped, and neighbours are more frequent.
    """
    size = (int(np.ceil(line.box[0])) + 2 * ROOM, int(np.ceil(line.box[1])) + 2 * ROOM)
    blank = Image.new("L", size)
    ink = _drawn(line, size, 1 if rng.random() < 0.18 else 0)
    outline = shadow = others = blank
    if rng.random() < (0.22 if hard else 0.06):
        outline = _drawn(line, size, int(rng.integers(1, 4)))
    if rng.random() < (0.25 if hard else 0.08):
        shadow = _shadow_of(ink, rng)
    neighbours = (0.35 if hard else 0.15) * (1.5 if wide else 1)
    if rng.random() < neighbours:
        others = _neighbours(line, blank.copy(), rng)
    if wide and rng.random() < (0.25 if hard else 0.12):
        ink, outline, shadow = _ornament(line, ink, outline, shadow, rng)
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


def _ornament(
    line: Lettering, ink: Image.Image, outline: Image.Image, shadow: Image.Image, rng: Rng
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Letters as logos, displays and stamps have them: new coverages of ink, outline and shadow."""
    kind = rng.random()
    if kind < 0.3:  # hollow
        around = _drawn(line, ink.size, int(rng.integers(1, 4)))
        return ImageChops.subtract(around, _drawn(line, ink.size, 0)), outline, shadow
    if kind < 0.5:  # dotted, as by lamps
        return ImageChops.multiply(ink, _screen(ink.size, int(rng.integers(3, 6)), dots=True)), outline, shadow
    if kind < 0.6:  # striped
        return ImageChops.multiply(ink, _screen(ink.size, int(rng.integers(3, 7)), dots=False)), outline, shadow
    if kind < 0.85:  # extruded
        dx, dy = rng.choice((-1, 0, 1)), rng.choice((-1, 1))
        body = ink
        for step in range(1, int(rng.integers(3, 9))):
            body = ImageChops.lighter(body, ImageChops.offset(ink, step * int(dx), step * int(dy)))
        return ink, outline, body
    return ink, ImageChops.offset(ink, -1, -1), ImageChops.offset(ink, 1, int(rng.integers(1, 3)))  # stamped


def _screen(size: tuple[int, int], period: int, *, dots: bool) -> Image.Image:
    """Dots or level stripes, `period` pixels apart, as coverage."""
    width, height = size
    up = np.abs(np.arange(height) % period - (period - 1) / 2)[:, None]
    along = np.abs(np.arange(width) % period - (period - 1) / 2)[None, :]
    distance = np.hypot(up, along) if dots else np.broadcast_to(up, (height, width))
    return Image.fromarray(np.where(distance < 0.36 * period, 255, 20).astype(np.uint8))


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
