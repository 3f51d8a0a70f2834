"""Which way up a crop is: it is read turned by several angles, and the most plausible of the readings is kept. Pure.

An angle is the degrees, clockwise, by which a picture is turned before it is read: one with text that runs downwards (as a
picture turned by 90 degrees clockwise has it) needs 270.

The numbers were chosen on training sets of crops with the bundled model; docs/orientation.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

from PIL import Image

from artifact.text import Reading

Orientation = Literal["upright", "auto", "full"]
"""`upright`: crops are read as they are. `auto`: tall crops, and doubtful ones that are not wide, also turned by 90 and 270
degrees. `full`: also by 180 degrees where no reading is confident."""

TALL: Final = 1.5
"""From this many times its width on, the height of a crop makes it tall."""
DOUBTFUL: Final = 0.7
"""A crop that is neither tall nor wide is turned if it is read with less confidence."""
FULL_BELOW: Final = 0.9
"""`full` reads upside down too if the best reading has less confidence."""
AS_LIKELY: Final = 1.6
"""The height over the width at which a crop is as likely to be turned as not, before anything is read."""
ASPECT_WEIGHT: Final = 4.0
"""How much more likely, in natural logarithms of odds, it is turned for each natural logarithm of that ratio above `AS_LIKELY`,
and how much less for each below: a network reads letters that lie on their side with some confidence."""
UPSIDE_DOWN_MALUS: Final = 1.5
"""How much less likely a crop is upside down than its confidence says, since few are."""
SIGNS_MALUS: Final = 3.0
"""The same of a reading without letters and digits: letters that lie on their side look like `=` and `*`."""
SHORT: Final = 2
SHORT_MALUS: Final = 3.0
"""The same of a crop that is turned, where at most `SHORT` characters are read: a letter on its side looks like another."""
EMPTY_MALUS: Final = 2.0
"""The same of a crop in which nothing is read as it is: that says little where letters lie on their side, but a picture without
a text is not to become a word because it is looked at three times."""
USUAL_ADVANCE: Final = 0.42
"""Width of a usual character, in heights of the crop."""
ADVANCE_WEIGHT: Final = 0.4
"""How much it counts, in squared natural logarithms, that characters would be wider or narrower than that."""
NOTHING_READ: Final = -math.inf
_CERTAIN: Final = 1e-4
_IMPOSSIBLE: Final = 1e-6

TURNS: Final = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
"""Pillow's names count the other way round."""


def turned(picture: Image.Image, angle: int) -> Image.Image:
    """The picture turned clockwise by a multiple of 90 degrees, pixel for pixel."""
    return picture.transpose(TURNS[angle]) if angle else picture


def is_tall(width: int, height: int) -> bool:
    """Whether a crop is likely to hold text that runs up or down."""
    return height >= TALL * width


def may_be_turned(width: int, height: int) -> bool:
    """Whether a crop may hold such text, if it is not read with confidence as it is."""
    return height >= width


def is_doubtful(reading: Reading | None) -> bool:
    """Whether what was read of such a crop as it is leaves a doubt."""
    return reading is None or reading.confidence < DOUBTFUL


def most_plausible(readings: Mapping[int, Reading | None], width: int, height: int) -> int:
    """The angle whose reading is the most plausible; 0, that of the picture as it is, if there are only empty texts.

    Plausible is what is confident, and has as many characters as fit into the picture turned like that.

    Args:
        readings: By angle; those that failed are `None`.
        width: Of the picture as it is, in pixels.
        height: Of the picture as it is, in pixels.
    """
    if not any(reading is not None and reading.text for reading in readings.values()):
        return 0
    return max(sorted(readings), key=lambda angle: _plausibility(readings[angle], angle, width, height))


def _plausibility(reading: Reading | None, angle: int, width: int, height: int) -> float:
    if reading is None or (angle and not reading.text):
        return NOTHING_READ
    confidence = min(max(reading.confidence, _IMPOSSIBLE), 1 - _CERTAIN)
    odds = math.log(confidence / (1 - confidence))
    malus = UPSIDE_DOWN_MALUS if angle == 180 else 0.0
    if angle not in (90, 270):
        malus += ASPECT_WEIGHT * math.log(height / width / AS_LIKELY)
    if not reading.text:
        return odds - malus - EMPTY_MALUS
    across, along = (width, height) if angle in (90, 270) else (height, width)
    advance = along / across / len(reading.text)
    malus += ADVANCE_WEIGHT * math.log(advance / USUAL_ADVANCE) ** 2
    if angle in (90, 270) and len(reading.text) <= SHORT:
        malus += SHORT_MALUS
    if not any(character.isalnum() for character in reading.text):
        malus += SIGNS_MALUS
    return odds - malus
