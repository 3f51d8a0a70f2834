"""The renderer as a source of training crops: no crop is seen twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.data.crops import CropArrays, spelt_centers
from model.data.labels import LabelRules
from model.data.sources import Augment, assemble
from model.errors import DataError
from model.synth.dataset import Recipe
from model.synth.render import RenderedCrop

_ATTEMPTS: Final = 1000
_STRIDE: Final = 1 << 40
"""Larger than the number of crops of any run."""


class RenderedSource:
    """A source without end: crop `i` of its seed is drawn when it is asked for."""

    endless = True
    name = "render"

    def __init__(self, recipe: Recipe, img_size: tuple[int, int], rules: LabelRules) -> None:
        """Find fonts and words, once: the processes that load data inherit them.

        Raises:
            FontsNotFoundError, DictionaryNotFoundError, NoWordsError: There are none.
        """
        self.recipe, self.img_size, self.rules = recipe, img_size, rules
        self._render = recipe.source()

    def __len__(self) -> int:
        return 0

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
        """See `Source`."""
        drawn = (self._readable(int(number)) for number in numbers)
        samples = ((crop.image, label, spelt_centers(crop.relative_centers, crop.text, self.rules)) for crop, label in drawn)
        return assemble(samples, self.img_size, augment, seeds)

    def _readable(self, number: int) -> tuple[RenderedCrop, str]:
        """Crop `number` or, if the rules refuse its label, one with a number that no other asks for."""
        for attempt in range(_ATTEMPTS):
            crop = self._render(number + attempt * _STRIDE)
            label = self.rules(crop.text)
            if label is not None:
                return crop, label
        raise DataError("the renderer draws hardly any text that the charset and the label length allow")
