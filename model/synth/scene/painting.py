"""Colour: what lies behind the letters, and the letters on top of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.synth.scene import backgrounds, colours, effects
from model.synth.scene.colours import Pair

Rng = np.random.Generator
Pixels = NDArray[np.float32]


def paint(rng: Rng, masks: Image.Image, size: tuple[int, int], pair: Pair, *, hard: bool) -> Image.Image:
    """Ground, neighbours, shadow, outline and ink, in this order."""
    coverage = np.asarray(masks, np.float32) / np.float32(255)
    used = [bool(channel.max() > 0) for channel in np.moveaxis(coverage, -1, 0)]
    ground, ink = pair
    pixels = _ground(rng, size, ground, colours.contrast(ground, ink), hard=hard)
    if used[3]:
        other = ink if rng.random() < 0.7 else colours.contrasting(rng, ground, 40)
        pixels = _mix(pixels, other, coverage[..., 3])
    if used[2]:
        dark = ground * np.float32(rng.uniform(0, 0.6)) if rng.random() < 0.8 else colours.random_colour(rng)
        pixels = _mix(pixels, dark, coverage[..., 2] * np.float32(rng.uniform(0.3, 0.9)))
    if used[1]:
        pixels = _mix(pixels, colours.contrasting(rng, ink, 60), coverage[..., 1])
    return effects.to_image(_mix(pixels, _ink(rng, size, ink, hard=hard), coverage[..., 0]))


def _mix(below: Pixels, above: Pixels, coverage: Pixels) -> Pixels:
    return np.asarray(below + (above - below) * coverage[..., None], np.float32)


def _ground(rng: Rng, size: tuple[int, int], colour: colours.Colour, contrast: float, *, hard: bool) -> Pixels:
    """The background; its own variation stays below the `contrast` that the ink has against it."""
    kind = rng.random() if hard else 0.75 * rng.random()
    if kind < 0.45:
        pixels = backgrounds.plain(size, colour)
    elif kind < 0.6:
        pixels = backgrounds.gradient(rng, size, colour, rng.uniform(0.1, 0.8) * contrast)
    else:
        pixels = backgrounds.textured(rng, size, colour, rng.uniform(0.04, 0.3 if hard else 0.12) * contrast)
    if hard and rng.random() < 0.25:
        pixels = backgrounds.add_clutter(rng, pixels, colour, rng.uniform(0.1, 0.45) * contrast)
    if rng.random() < (0.15 if hard else 0.05):
        pixels = backgrounds.add_edge(rng, pixels)
    return pixels


def _ink(rng: Rng, size: tuple[int, int], colour: colours.Colour, *, hard: bool) -> Pixels:
    kind = rng.random()
    if kind < 0.1:
        return backgrounds.gradient(rng, size, colour, rng.uniform(15, 70))
    if hard and kind < 0.22:
        return backgrounds.textured(rng, size, colour, rng.uniform(5, 25))
    return colour
