"""Crops without any letter, as detectors cut them out: surfaces, edges, strokes, and slivers of letters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.synth.scene import backgrounds, colours, effects

Rng = np.random.Generator
Pixels = NDArray[np.float32]


def draw_blank(rng: Rng) -> Image.Image:
    """A crop with nothing to read, RGB, 12 to 64 pixels high."""
    height = int(rng.integers(12, 65))
    width = int(np.clip(height * rng.lognormal(0.9, 0.6), 8, 400))
    size = (width, height)
    ground, ink = colours.pair(rng)
    pixels = _surface(rng, size, ground)
    kind = rng.random()
    if kind < 0.35:
        pixels = backgrounds.add_clutter(rng, pixels, ground, float(rng.uniform(10, 90)))
    elif kind < 0.55:
        pixels = _strokes(rng, pixels, ink)
    if rng.random() < 0.2:
        pixels = backgrounds.add_edge(rng, pixels)
    if rng.random() < 0.3:
        pixels = effects.illuminate(rng, pixels, float(rng.uniform(0.1, 0.7)))
    if rng.random() < 0.2:
        pixels = effects.spot(rng, pixels)
    if rng.random() < 0.5:
        pixels = effects.add_noise(rng, pixels, float(rng.exponential(8)))
    image = effects.to_image(pixels)
    if rng.random() < 0.4:
        image = effects.blur(image, float(rng.uniform(0.5, 3)))
    return effects.jpeg(image, int(rng.uniform(25, 95))) if rng.random() < 0.5 else image


def _surface(rng: Rng, size: tuple[int, int], colour: colours.Colour) -> Pixels:
    kind = rng.random()
    if kind < 0.25:
        return backgrounds.plain(size, colour)
    if kind < 0.5:
        return backgrounds.gradient(rng, size, colour, float(rng.uniform(5, 160)))
    if kind < 0.9:
        return backgrounds.textured(rng, size, colour, float(rng.exponential(25)))
    return np.asarray(rng.uniform(0, 255, (size[1], size[0], 3)), np.float32)


def _strokes(rng: Rng, pixels: Pixels, ink: colours.Colour) -> Pixels:
    """Lines too long or too thick to be letters: from border to border, as of frames, cables, tiles, fences."""
    canvas = effects.to_image(pixels)
    pen = ImageDraw.Draw(canvas)
    width, height = canvas.size
    fill = tuple(int(value) for value in np.clip(ink, 0, 255))
    slope = float(rng.normal(0, 0.25)) * height
    level = rng.random() < 0.7
    count = int(rng.integers(1, 5))
    for place in np.sort(rng.uniform(-0.1, 1.1, count)):
        thick = max(1, int(rng.uniform(0.02, 0.35) * height))
        if level:
            pen.line([(-width, place * height - slope), (2 * width, place * height + slope)], fill=fill, width=thick)
        else:
            pen.line([(place * width - slope, -height), (place * width + slope, 2 * height)], fill=fill, width=thick)
    return np.asarray(canvas, np.float32)


def slice_of(image: Image.Image, rng: Rng) -> Image.Image:
    """What is left of a word when only the tips of its letters, or the edge beside it, are in the crop."""
    width, height = image.size
    part = float(rng.uniform(0.06, 0.14))
    top, bottom = (0.0, part) if rng.random() < 0.5 else (1 - part, 1.0)
    left = rng.uniform(0, 0.6) * width
    box = (left, top * height, min(width, left + rng.uniform(0.2, 0.5) * width), bottom * height)
    size = (max(8, int(box[2] - box[0])), int(rng.integers(10, 40)))
    return image.resize(size, Image.Resampling.BICUBIC, box)
