"""Where the crops of a training batch come from: memory, archives and image files read as they are needed, and the renderer.

A source is asked for crops by number and answers with a `Crops`. It does so in the processes that load data, where crops are
also augmented one by one. `StoredSource` and `model.synth.source` are sources too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.fit import fit
from model.data.crops import Centers, Crops, concatenate, unknown_centers

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


def assemble(
    samples: Iterable[tuple[Image.Image, str, Centers]],
    img_size: tuple[int, int],
    augment: Augment | None,
    seeds: Sequence[Sequence[int]],
) -> Crops:
    """Pictures with their labels and centres, augmented and brought to the network's size.

    Args:
        samples: RGB, of any size; as many as there are seeds.
        img_size: Height and width in pixels.
        augment: Alters each crop; None: they stay as they are.
        seeds: Of the random numbers of each crop.
    """
    images = np.empty((len(seeds), *img_size, 3), np.uint8)
    centers = unknown_centers(len(seeds))
    labels = []
    for row, ((image, label, known), seed) in enumerate(zip(samples, seeds, strict=True)):
        altered = (image, known) if augment is None else augment(image, known, np.random.default_rng(seed))
        images[row], centers[row] = fit(altered[0], *img_size), altered[1]
        labels.append(label)
    return Crops(images, labels, centers)


class MemorySource:
    """Crops in memory, at the network's size."""

    endless = False

    def __init__(self, name: str, held: Crops) -> None:
        self.name, self.held = name, held

    def __len__(self) -> int:
        return len(self.held)

    def part(self, chosen: NDArray[np.int64]) -> MemorySource:
        """A source of some of the crops, by number."""
        return MemorySource(self.name, self.held.take(chosen))

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`."""
        chosen = self.held.take(numbers)
        if augment is None:
            return chosen
        pictures = map(Image.fromarray, chosen.images)
        height, width = chosen.images.shape[1:3]
        return assemble(zip(pictures, chosen.labels, chosen.centers, strict=True), (height, width), augment, seeds)


class RenderedCrops(MemorySource):
    """Crops that were rendered before: not held out for validation, nor augmented as real ones are."""


class JoinedSource:
    """Several sources as one, in order."""

    endless = False

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        self.name, self.parts = name, list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
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


class AugmentedSource(JoinedSource):
    """Several sources as one, whose crops are augmented in a way of their own."""

    def __init__(self, name: str, parts: Sequence[Source], augment: Augment) -> None:
        super().__init__(name, parts)
        self.augment = augment

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`; `augment` is for sources that have none."""
        return super().crops(numbers, self.augment, seeds)


def join(name: str, parts: Sequence[Source]) -> Source:
    """One source of all `parts`."""
    return parts[0] if len(parts) == 1 else JoinedSource(name, parts)


def leaves(source: Source) -> list[Source]:
    """The sources that `source` joins, at any depth; itself if it joins none."""
    return [leaf for part in source.parts for leaf in leaves(part)] if isinstance(source, JoinedSource) else [source]
