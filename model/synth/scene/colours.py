"""Pairs of colours that lettering and its ground wear in the street."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]
Pair = tuple[Colour, Colour]
Rng = np.random.Generator

_COMMON_HUES: Final = (0.0, 0.0, 0.03, 0.08, 0.12, 0.15, 0.35, 0.45, 0.56, 0.6, 0.62)
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def luma(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Perceived brightness in 0-255 of colours (..., 3)."""
    return np.asarray(colour @ _LUMA, np.float32)


def random_colour(rng: Rng) -> Colour:
    """A colour (3,) float32 in 0-255: often near white or black, else grey, muted or vivid."""
    kind = rng.random()
    if kind < 0.22:
        base = 255 - rng.exponential(14)
    elif kind < 0.43:
        base = rng.exponential(25)
    elif kind < 0.6:
        base = rng.uniform(30, 230)
    else:
        saturation = rng.uniform(0.55, 1) if kind < 0.78 else rng.uniform(0.08, 0.5)
        return _from_hsv(_hue(rng), saturation, rng.uniform(0.25, 1))
    return np.clip(base + rng.normal(0, 6, 3), 0, 255).astype(np.float32)


def contrasting(rng: Rng, other: Colour, at_least: float) -> Colour:
    """A colour whose brightness differs by `at_least` from `other`'s; the best of many when none does."""
    best, gap = other, -1.0
    for _ in range(30):
        colour = random_colour(rng)
        difference = abs(float(luma(colour) - luma(other)))
        if difference >= at_least:
            return colour
        if difference > gap:
            best, gap = colour, difference
    return best


def contrast(one: Colour, other: Colour) -> float:
    """Difference of brightness in grey levels."""
    return abs(float(luma(one) - luma(other)))


def pair(rng: Rng, *, faint_share: float = 0.0) -> Pair:
    """Ground and ink, either one the darker; one pair in twelve is of low contrast, and `faint_share` of even less."""
    ground = random_colour(rng)
    if faint_share and rng.random() < faint_share:
        return ground, _near(rng, ground, rng.uniform(14, 35))
    kind = rng.random()
    if kind < 0.08:
        return ground, _near(rng, ground, rng.uniform(35, 60))
    return ground, contrasting(rng, ground, rng.uniform(60, 150))


def _hue(rng: Rng) -> float:
    """Paint is red, orange, yellow, green or blue more often than magenta."""
    if rng.random() < 0.15:
        return float(rng.random())
    return float(rng.choice(_COMMON_HUES) + rng.normal(0, 0.025)) % 1.0


def _near(rng: Rng, ground: Colour, distance: float) -> Colour:
    up = float(luma(ground)) < 127 if rng.random() < 0.8 else float(luma(ground)) < 60
    shifted = ground + (distance if up else -distance) + rng.normal(0, 8, 3)
    return np.clip(shifted, 0, 255).astype(np.float32)


def _from_hsv(hue: float, saturation: float, value: float) -> Colour:
    offsets = np.array([0.0, 2 / 3, 1 / 3])
    channel = np.clip(np.abs((hue + offsets) % 1 * 6 - 3) - 1, 0, 1)
    return np.asarray(255 * value * (1 - saturation * (1 - channel)), np.float32)
