"""How a line of text lies in its crop: stretch, slant, turn, perspective, bend and margins."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.synth.lettering.lines import Lettering
from model.synth.scene.geometry import (
    Arc,
    Matrix,
    Warp,
    border,
    perspective,
    rotation,
    scaling,
    shear,
    translation,
)

Rng = np.random.Generator

MAX_SIDE: Final = 900
CURVED_SHARE: Final = 0.1
"""Of the crops with many effects."""
WIDEST_ARC: Final = 100.0
"""Degrees."""


def place(
    line: Lettering, rng: Rng, *, hard: bool, room: int, curved_share: float = CURVED_SHARE, widest: float = WIDEST_ARC
) -> tuple[Warp, tuple[int, int]]:
    """The warp from the flat text, its ink at (room, room), to the crop; and the crop's (width, height).

    A bent text spans `widest` degrees of its circle at most.
    """
    width, height = line.box
    middle = (room + width / 2, room + height / 2)
    arc = _arc(rng, line, middle, widest) if hard and len(line.text) > 2 and rng.random() < curved_share else None
    warp = Warp(_matrix(rng, line, hard=hard) @ translation(-middle[0], -middle[1]), arc)
    box = (room, room, room + width, room + height)
    if rng.random() < (0.35 if hard else 0.05):
        warp = Warp(_receding(rng, np.abs(warp.forward(border(box))).max(axis=0)) @ warp.matrix, arc)
    ink = warp.forward(border(box))
    centers = warp.forward(line.centers + room)
    low, high = _margins(rng, ink.min(axis=0), ink.max(axis=0), hard=hard)
    # Even a crop cut tight shows the middle of every glyph.
    low = np.minimum(low, centers.min(axis=0) - 2)
    high = np.maximum(high, centers.max(axis=0) + 2)
    extent = np.maximum(np.ceil(high - low), 4)
    return warp.moved(-low[0], -low[1]), (int(extent[0]), int(extent[1]))


def _arc(rng: Rng, line: Lettering, middle: tuple[float, float], widest: float) -> Arc:
    # The circle is wider than the letters are high.
    radius = max(line.box[0] / np.radians(rng.uniform(15, widest)), 1.5 * line.box[1])
    return Arc(middle, float(radius if rng.random() < 0.7 else -radius))


def _matrix(rng: Rng, line: Lettering, *, hard: bool) -> Matrix:
    stretch = float(np.exp(rng.normal(0.0, 0.2)))
    scale = min(1.0, MAX_SIDE / (line.box[0] * stretch))
    matrix = scaling(scale * min(max(stretch, 0.6), 1.7), scale)
    if rng.random() < (0.35 if hard else 0.1):
        matrix = shear(float(rng.normal(0, 0.18))) @ matrix
    matrix = rotation(_angle(rng, len(line.text), hard=hard)) @ matrix
    return matrix


def _receding(rng: Rng, reach: NDArray[np.float64]) -> Matrix:
    """A perspective for ink that reaches `reach` (2,) pixels from the origin: the far end at most half as large."""
    recede = np.clip(rng.normal(0, 0.1, 2), -0.16, 0.16) / reach
    return perspective(float(recede[0]), float(recede[1]))


def _angle(rng: Rng, length: int, *, hard: bool) -> float:
    """Degrees. Long words turned far would be mere slivers in a crop of fixed height."""
    kind = rng.random()
    if not hard:
        return float(rng.normal(0, 1.2)) if kind < 0.4 else 0.0
    if kind < 0.3:
        return 0.0
    limit = 25.0 if length <= 6 else 150.0 / length
    if kind < 0.9:
        return float(np.clip(rng.normal(0, 4), -limit, limit))
    if kind < 0.985:
        return float(rng.uniform(-limit, limit))
    return float(rng.uniform(-1.6, 1.6) * limit)


def _margins(
    rng: Rng, low: NDArray[np.float64], high: NDArray[np.float64], *, hard: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The crop's corners: each side on its own, from slightly cut to loose, in shares of the ink's height."""
    height = min(float(high[1] - low[1]), 60.0)
    looseness = 0.08 + rng.exponential(0.08 if hard else 0.07)
    sides = rng.uniform(-0.02 if not hard else -0.06, 1.0, 4) * min(looseness, 0.35)
    if hard and rng.random() < 0.12:
        sides = sides + rng.uniform(-0.08, 0.25, 4)
    return low - sides[:2] * height, high + sides[2:] * height
