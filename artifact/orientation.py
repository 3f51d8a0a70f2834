"""Which way up a crop is: it is read turned by several angles, and the most plausible of the readings is kept. Pure.

An angle is the degrees, clockwise, by which a picture is turned before it is read: one with text that runs downwards (as a
picture turned by 90 degrees clockwise has it) needs 270.

The numbers were chosen on the ICDAR 2015 training set with the bundled model; docs/orientation.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

from PIL import Image

from artifact.text import Reading

Orientation = Literal["upright", "auto", "full"]
"""`upright`: crops are read as they are. `auto`: tall crops also turned by 90 and 270 degrees. `full`: also by 180 degrees
where no reading is confident."""

TALL: Final = 1.5
"""From this many times its width on, the height of a crop makes it tall."""
FULL_BELOW: Final = 0.9
"""`full` reads upside down too if the best reading has less confidence."""
AS_IT_IS_MALUS: Final = 1.0
"""How much less likely, in natural logarithms of odds, a tall crop is upright than its confidence says: a network reads letters
that lie on their side with some confidence."""
UPSIDE_DOWN_MALUS: Final = 1.5
"""The same of a crop that is upside down, since few are."""
SIGNS_MALUS: Final = 3.0
"""The same of a reading without letters and digits: letters that lie on their side look like `=` and `*`."""
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
    """Whether a crop may hold text that runs up or down."""
    return height >= TALL * width


def most_plausible(readings: Mapping[int, Reading | None], width: int, height: int) -> int:
    """The angle whose reading is the most plausible; that of the picture as it is if there are only empty texts.

    Plausible is what is confident, and has as many characters as fit into the picture turned like that.

    Args:
        readings: By angle; those that failed are `None`.
        width: Of the picture as it is, in pixels.
        height: Of the picture as it is, in pixels.
    """
    return max(sorted(readings), key=lambda angle: _plausibility(readings[angle], angle, width, height))


def _plausibility(reading: Reading | None, angle: int, width: int, height: int) -> float:
    if reading is None or not reading.text:
        return NOTHING_READ
    confidence = min(max(reading.confidence, _IMPOSSIBLE), 1 - _CERTAIN)
    odds = math.log(confidence / (1 - confidence))
    across, along = (width, height) if angle in (90, 270) else (height, width)
    advance = along / across / len(reading.text)
    malus = ADVANCE_WEIGHT * math.log(advance / USUAL_ADVANCE) ** 2
    if angle not in (90, 270) and is_tall(width, height):
        malus += AS_IT_IS_MALUS
    if not any(character.isalnum() for character in reading.text):
        malus += SIGNS_MALUS
    return odds - malus - (UPSIDE_DOWN_MALUS if angle == 180 else 0.0)
