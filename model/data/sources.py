"""Where the crops of a training batch come from: memory, archives and image files read as they are needed, and the renderer.

A source is asked for crops by number and answers with `CropArrays`. It does so in the processes that load data, where crops are
also augmented one by one. The renderer's source is in `model.synth.source`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.fit import fit
from model.data.alterations import Alterations
from model.data.archives import Archive
from model.data.crops import Centers, CropArrays, Stored, concatenate, decode_stored, none_usable, unknown_centers
from model.data.label_files import LabelledFiles
from model.data.labels import LabelRules
from model.errors import DataError

MAX_PIXELS_ASIDE: Final = 4
"""A stored crop larger than so many times the network's size is shrunk before it is augmented: it saves time, hides nothing."""

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

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
        """The crops of these numbers, augmented with a generator of random numbers seeded by `seeds` for each."""
        ...


def assemble(
    samples: Iterable[tuple[Image.Image, str, Centers]],
    img_size: tuple[int, int],
    augment: Augment | None,
    seeds: Sequence[Sequence[int]],
) -> CropArrays:
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
    return CropArrays(images, labels, centers)


class MemorySource:
    """Crops in memory, at the network's size."""

    endless = False

    def __init__(self, name: str, held: CropArrays) -> None:
        self.name, self.held = name, held

    def __len__(self) -> int:
        return len(self.held)

    def part(self, chosen: NDArray[np.int64]) -> MemorySource:
        """A source of some of the crops, by number."""
        return MemorySource(self.name, self.held.take(chosen))

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
        """See `Source`."""
        chosen = self.held.take(numbers)
        if augment is None:
            return chosen
        pictures = map(Image.fromarray, chosen.images)
        height, width = chosen.images.shape[1:3]
        return assemble(zip(pictures, chosen.labels, chosen.centers, strict=True), (height, width), augment, seeds)


class RenderedCrops(MemorySource):
    """Crops that were rendered before: not held out for validation, nor augmented as real ones are."""


class StoredSource:
    """Crops that stay in their archive or files until they are needed: decoded each time, never all in memory.

    What is held is four bytes a crop: which ones the rules allow. Broken images are found when they are first asked for; the
    next crop that is whole stands in for them, and they are counted across all processes.
    """

    endless = False

    def __init__(
        self,
        name: str,
        stored: Stored,
        img_size: tuple[int, int],
        rules: LabelRules,
        allowed: NDArray[np.int32] | None = None,
        alterations: Alterations | None = None,
    ) -> None:
        """Look through the labels, counting in `alterations` what they lose; or take `allowed` for the crops to use.

        Raises:
            DataError: No crop has a label that the rules allow.
        """
        self.name, self.stored, self.img_size, self.rules = name, stored, img_size, rules
        alterations = Alterations() if alterations is None else alterations
        if allowed is None:
            labels = ((i, stored.label(i)) for i in range(len(stored)))
            usable = (i for i, label in labels if label is not None and rules(label, alterations) is not None)
            allowed = np.fromiter(usable, np.int32)
        if not len(allowed):
            raise none_usable(name, alterations)
        self.allowed = allowed
        # Shared by the processes that load data, so that a broken crop counts once.
        self._broken = np.frombuffer(multiprocessing.RawArray("B", len(allowed)), np.uint8)

    def __len__(self) -> int:
        """Number of crops that the rules allow, broken ones included."""
        return len(self.allowed)

    @property
    def broken(self) -> int:
        """How many broken images were met so far."""
        return int(np.count_nonzero(self._broken))

    def part(self, chosen: NDArray[np.int64]) -> StoredSource:
        """A source of some of the crops, by number."""
        return StoredSource(self.name, self.stored, self.img_size, self.rules, self.allowed[chosen])

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
        """See `Source`."""
        whole = (self._whole(int(number), shrink=augment is not None) for number in numbers)
        unknown = unknown_centers(1)[0]
        return assemble(((image, label, unknown) for image, label in whole), self.img_size, augment, seeds)

    def _whole(self, number: int, *, shrink: bool) -> tuple[Image.Image, str]:
        """Crop `number` or, if it is broken, the next that is not."""
        for step in range(len(self)):
            at = (number + step) % len(self)
            if not self._broken[at]:
                index = int(self.allowed[at])
                image = decode_stored(self.stored, index)
                label = self.stored.label(index)
                text = None if label is None else self.rules(label)
                if image is not None and text is not None:
                    if shrink:
                        height, width = self.img_size
                        image.thumbnail((MAX_PIXELS_ASIDE * width, MAX_PIXELS_ASIDE * height), Image.Resampling.BICUBIC)
                    return image, text
                self._broken[at] = 1
        raise DataError(f"no image in {self.name} can be decoded")


def stored_at(path: Path) -> tuple[str, Stored]:
    """An LMDB archive (a folder) or a file of labels, and what it is called: as its folder.

    Raises:
        DataError: It is neither.
    """
    return (path.name, Archive(path)) if path.is_dir() else (path.parent.name, LabelledFiles(path))


class JoinedSource:
    """Several sources as one, in order."""

    endless = False

    def __init__(self, name: str, parts: Sequence[Source]) -> None:
        self.name, self.parts = name, list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
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

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> CropArrays:
        """See `Source`; `augment` is for sources that have none."""
        return super().crops(numbers, self.augment, seeds)


def join(name: str, parts: Sequence[Source]) -> Source:
    """One source of all `parts`."""
    return parts[0] if len(parts) == 1 else JoinedSource(name, parts)


def leaves(source: Source) -> list[Source]:
    """The sources that `source` joins, at any depth; itself if it joins none."""
    return [leaf for part in source.parts for leaf in leaves(part)] if isinstance(source, JoinedSource) else [source]
