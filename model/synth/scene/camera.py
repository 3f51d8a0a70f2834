"""How a camera and a publisher degrade a picture, as far as its lettering stays readable."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.synth.scene import colours, effects
from model.synth.scene.colours import Pair

Rng = np.random.Generator

BEARS_BAD_LIGHT: Final = 0.4
"""Crops with less tolerance than this would become unreadable in bad light."""


def tolerance_of(text: str, image: Image.Image, pair: Pair) -> float:
    """How much a crop may be degraded, in (0, 1]: little when its letters are narrow or faint."""
    contrast = colours.contrast(*pair)
    width = image.width / len(text)
    return min(1.0, width / 20) * min(1.0, contrast / 100)


def degrade(
    rng: Rng, image: Image.Image, tolerance: float, *, hard: bool, wide: bool = False
) -> tuple[Image.Image, NDArray[np.float64]]:
    """Light, lens, sensor and file. Returns the image and the factors (2,) by which x and y grew.

    With `wide` some crops are taken in the dark, or through a glare.
    """
    before = np.array(image.size, np.float64)
    image = _light(rng, image, hard=hard)
    if wide and hard and tolerance > BEARS_BAD_LIGHT and rng.random() < 0.2:
        image = _bad_light(rng, image)
        tolerance *= 0.5
    kind = rng.random()
    if hard and kind < 0.35:
        image = effects.blur(image, float(rng.uniform(0.5, 0.7 + 1.9 * tolerance)))
    elif hard and kind < 0.45:
        image = effects.motion_blur(rng, image, 1 + float(rng.uniform(1, 6)) * tolerance)
    image = _resample(rng, image, tolerance, hard=hard)
    if rng.random() < (0.45 if hard else 0.12):
        deviation = min(float(rng.exponential(7 if hard else 3)), 25 * tolerance)
        image = effects.to_image(effects.add_noise(rng, np.asarray(image, np.float32), deviation))
    if rng.random() < (0.55 if hard else 0.35):
        lowest = 20 + 30 * (1 - tolerance) if hard else 50
        image = effects.jpeg(image, int(rng.uniform(lowest, 95)))
    return image, np.array(image.size, np.float64) / before


def _light(rng: Rng, image: Image.Image, *, hard: bool) -> Image.Image:
    if not hard or rng.random() > 0.5:
        return image
    pixels = np.asarray(image, np.float32)
    if rng.random() < 0.4:
        pixels = effects.illuminate(rng, pixels, float(rng.uniform(0.1, 0.6)))
    if rng.random() < 0.2:
        pixels = effects.spot(rng, pixels)
    if rng.random() < 0.6:
        pixels = effects.shift_tone(rng, pixels)
    return effects.to_image(pixels)


def _bad_light(rng: Rng, image: Image.Image) -> Image.Image:
    """Night with a sensor's noise, or a glare that takes contrast away."""
    pixels = np.asarray(image, np.float32)
    if rng.random() < 0.6:
        pixels = effects.add_noise(rng, pixels * np.float32(rng.uniform(0.15, 0.5)), float(rng.uniform(1, 5)))
    else:
        veil = np.float32(rng.uniform(0.2, 0.6))
        pixels = effects.spot(rng, pixels * (1 - veil) + veil * np.float32(rng.uniform(150, 255)))
    return effects.to_image(pixels)


def _resample(rng: Rng, image: Image.Image, tolerance: float, *, hard: bool) -> Image.Image:
    """Lose resolution: most crops are 17 to 60 pixels high, and some were enlarged again by their publisher."""
    if rng.random() < (0.35 if hard else 0.5):
        return image
    width, height = image.size
    target = float(np.clip(rng.lognormal(np.log(26 if hard else 34), 0.35), 11 if hard else 18, 96))
    scale = max(target / height, 0.45 - 0.2 * tolerance)
    if scale >= 1:
        return image
    small = image.resize((max(4, round(width * scale)), max(4, round(height * scale))), Image.Resampling.BOX)
    return image if small.size == image.size else _enlarged(rng, small, image.size)


def _enlarged(rng: Rng, small: Image.Image, size: tuple[int, int]) -> Image.Image:
    if rng.random() < 0.7:
        return small
    method = Image.Resampling.BILINEAR if rng.random() < 0.5 else Image.Resampling.BICUBIC
    return small.resize(size, method)
