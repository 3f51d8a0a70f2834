"""Where the crops of a training batch come from: memory, archives and image files read as they are needed, and the renderer.

A source is asked for crops by number and answers with a `Crops`. It does so in the processes that load data, where crops are
also augmented one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.fit import fit
from model.data.crops import MAX_CENTERS, Crops, concatenate, spelt_centers, unknown_centers
from model.data.labels import LabelRules
from model.errors import DataError
from model.synth.dataset import CropSource as CropRenderer
from model.synth.dataset import Recipe
from model.synth.render import Crop

Centers = NDArray[np.float16]
Augment = Callable[[Image.Image, Centers, np.random.Generator], tuple[Image.Image, Centers]]
"""A crop and the centres of its glyphs (fractions of width and height) to an altered one."""


class Source(Protocol):
    """Crops by number."""

    name: str

    @property
    def endless(self) -> bool:
        """Whether every number is a new crop; if not, there are `len(source)`, used again in each epoch."""
        ...

    def __len__(self) -> int:
        """Number of crops; of no meaning when endless."""
        ...

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """The crops of these numbers, augmented with a generator of random numbers seeded by `seeds` for each."""
        ...


class MemorySource:
    """Crops in memory, at the network's size."""

    endless = False

    def __init__(self, name: str, held: Crops) -> None:
        self.name, self.held = name, held

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.held)

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`."""
        chosen = self.held.take(numbers)
        if augment is None:
            return chosen
        height, width = chosen.images.shape[1:3]
        images, centers = np.empty_like(chosen.images), np.empty_like(chosen.centers)
        for row, seed in enumerate(seeds):
            image = Image.fromarray(chosen.images[row])
            altered, centers[row] = augment(image, chosen.centers[row], np.random.default_rng(seed))
            images[row] = fit(altered, height, width)
        return Crops(images, chosen.labels, centers)


class RenderedCrops(MemorySource):
    """Crops that were rendered before: not held out for validation, nor augmented as real ones are."""


class JoinedSource:
    """Several sources as one, in order."""

    endless = False

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        self.name, self.parts = name, list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """Number of crops."""
        return int(self._ends[-1])

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`."""
        owners = np.searchsorted(self._ends, numbers, side="right")
        rows, found = [], []
        for owner in np.unique(owners):
            ours = np.flatnonzero(owners == owner)
            part = self.parts[int(owner)]
            found.append(
                part.crops(numbers[ours] - (self._ends[owner] - len(part)), augment, [seeds[row] for row in ours.tolist()])
            )
            rows.append(ours)
        return concatenate(found).take(np.argsort(np.concatenate(rows)))


def join(name: str, parts: Sequence[Source]) -> Source:
    """One source of all `parts`."""
    return parts[0] if len(parts) == 1 else JoinedSource(name, parts)


class AugmentedSource(JoinedSource):
    """Several sources as one, whose crops are augmented in a way of their own."""

    def __init__(self, name: str, parts: Sequence[Source], augment: Augment) -> None:
        super().__init__(name, parts)
        self.augment = augment

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`; `augment` is for sources that have none."""
        return super().crops(numbers, self.augment, seeds)


def leaves(source: Source) -> list[Source]:
    """The sources that `source` joins, at any depth; itself if it joins none."""
    return [leaf for part in source.parts for leaf in leaves(part)] if isinstance(source, JoinedSource) else [source]


class RenderedSource:
    """The renderer as a source without end: crop `i` of its seed is drawn when it is asked for."""

    endless = True
    name = "render"

    def __init__(self, recipe: Recipe, img_size: tuple[int, int], rules: LabelRules) -> None:
        """Find fonts and words, once: the processes that load data inherit them.

        Raises:
            FontsNotFoundError, DictionaryNotFoundError: they are not installed.
        """
        self.recipe, self.img_size, self.rules = recipe, img_size, rules
        self._render: CropRenderer = recipe.source()

    def __len__(self) -> int:
        """Of no meaning."""
        return 0

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`."""
        images = np.empty((len(numbers), *self.img_size, 3), np.uint8)
        centers = unknown_centers(len(numbers))
        labels = []
        for row, (number, seed) in enumerate(zip(numbers, seeds, strict=True)):
            crop, label = self._readable(int(number))
            drawn = np.full((MAX_CENTERS, 2), np.nan, np.float16)
            drawn[: len(crop.text)] = crop.glyph_centers / np.array(crop.image.size, np.float32)
            image, centers[row] = crop.image, spelt_centers(drawn, crop.text, self.rules)
            if augment is not None:
                image, centers[row] = augment(image, centers[row], np.random.default_rng(seed))
            images[row] = fit(image, *self.img_size)
            labels.append(label)
        return Crops(images, labels, centers)

    def _readable(self, number: int) -> tuple[Crop, str]:
        """Crop `number` or, if the rules refuse its label, one with a number that no other asks for."""
        for attempt in range(_ATTEMPTS):
            crop = self._render(number + attempt * _STRIDE)
            label = self.rules(crop.text)
            if label is not None:
                return crop, label
        raise DataError("the renderer draws hardly any text that the charset and the label length allow")


_ATTEMPTS = 1000
_STRIDE = 1 << 40
"""Far beyond the crops of any run."""
