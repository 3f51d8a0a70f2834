"""Draws one word as a camera might see it, and tells where each glyph is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.synth.lettering.fonts import Face, FontsNotFoundError
from model.synth.lettering.layers import ROOM, draw_layers
from model.synth.lettering.lines import lay_out
from model.synth.scene import colours, placement
from model.synth.scene.camera import degrade, tolerance_of
from model.synth.scene.painting import paint
from model.synth.scene.placement import CURVED_SHARE, WIDEST_ARC
from model.synth.words.phrases import MAX_LENGTH

Rng = np.random.Generator

WIDEST_ARC_OF_WIDE: Final = 170.0
"""Degrees."""
FAINT_SHARE: Final = 0.04
_FACE_TRIES: Final = 40


@dataclass(frozen=True)
class RenderedCrop:
    """A word crop."""

    image: Image.Image
    text: str
    """What is drawn: it may have been upper-cased to suit the face."""
    glyph_centers: NDArray[np.float32]
    """`(len(text), 2)`: x and y of each glyph's centre in pixels of `image`, always inside it."""

    @property
    def relative_centers(self) -> NDArray[np.float16]:
        """The centres as training wants them: `(25, 2)`, fractions of width and height, NaN after the text's end."""
        centers = np.full((MAX_LENGTH, 2), np.nan, np.float16)
        centers[: len(self.text)] = self.glyph_centers / np.array(self.image.size, np.float32)
        return centers


class CropRenderer:
    """Renders crops with the given faces; legible ones are preferred. Raises FontsNotFoundError for no faces.

    `clean_share` is the probability that a crop gets few effects, `curved_share` that another one is bent if its text has
    more than two letters. With `wide` the tails are longer: fainter, darker, hollow, dotted and extruded letters, bends of up
    to 170 degrees, and unusual faces as often as plain ones.
    """

    def __init__(
        self, faces: Sequence[Face], *, clean_share: float = 0.35, curved_share: float = CURVED_SHARE, wide: bool = False
    ) -> None:
        if not faces:
            raise FontsNotFoundError
        self._faces = list(faces)
        self._clean_share, self._curved_share, self._wide = clean_share, curved_share, wide
        weights = np.array([(0.6 if wide else 0.2) + face.legibility**3 for face in self._faces])
        self._cumulative = np.cumsum(weights / weights.sum())

    def render(self, text: str, rng: Rng) -> RenderedCrop:
        """Draw `text`. Raises ValueError for no text, and for characters that no face has together."""
        if not text:
            raise ValueError("cannot render an empty text")
        face = self._choose_face(text, rng)
        hard = rng.random() >= self._clean_share
        line = lay_out(face.spell(text), face, _font_size(text), _spacing(rng))
        widest = WIDEST_ARC_OF_WIDE if self._wide else WIDEST_ARC
        warp, size = placement.place(line, rng, hard=hard, room=ROOM, curved_share=self._curved_share, widest=widest)
        layers = draw_layers(line, rng, hard=hard, wide=self._wide)
        pair = colours.pair(rng, faint_share=FAINT_SHARE if self._wide else 0.0)
        image = paint(rng, warp.draw(layers, size), size, pair, hard=hard)
        centers = warp.forward(line.centers + ROOM)
        image, scale = degrade(rng, image, tolerance_of(line.text, image, pair), hard=hard, wide=self._wide)
        centers = centers * scale
        return RenderedCrop(image, line.text, centers.astype(np.float32))

    def _choose_face(self, text: str, rng: Rng) -> Face:
        for _ in range(_FACE_TRIES):
            index = int(np.searchsorted(self._cumulative, rng.random()))
            face = self._faces[min(index, len(self._faces) - 1)]
            if face.can_draw(text):
                return face
        able = [face for face in self._faces if face.can_draw(text)]
        if not able:
            raise ValueError(f"no face has all the characters of {text!r}")
        return able[int(rng.integers(len(able)))]


def _font_size(text: str) -> int:
    """Pixels per em. A long word is squeezed to the model's width anyway: drawing it smaller costs nothing."""
    return 40 if len(text) <= 8 else 32 if len(text) <= 14 else 26


def _spacing(rng: Rng) -> float:
    """Extra em between letters: mostly none, sometimes wide, rarely a little tight."""
    kind = rng.random()
    if kind < 0.62:
        return 0.0
    if kind < 0.7:
        return float(rng.uniform(-0.03, 0))
    return float(rng.exponential(0.09)) if kind < 0.97 else float(rng.uniform(0.2, 0.45))
