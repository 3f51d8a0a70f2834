"""Crops in LMDB archives and image files, decoded when they are needed: for data sets larger than memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artifact.fit import fit
from model.data.alterations import Alterations
from model.data.archives import Archive
from model.data.crops import Crops, none_usable, unknown_centers
from model.data.label_files import read_labels
from model.data.labels import LabelRules
from model.data.pictures import BrokenImageError, as_stored, decode_image, read_file
from model.data.sources import Augment
from model.errors import DataError

MAX_PIXELS_ASIDE = 4
"""A stored crop larger than so many times the network's size is shrunk before it is augmented: it saves time, hides nothing."""


class Stored(Protocol):
    """Encoded images and labels by index."""

    def __len__(self) -> int:
        """Number of crops."""
        ...

    def image(self, index: int) -> bytes:
        """The encoded image."""
        ...

    def label(self, index: int) -> str | None:
        """The label as it is stored; None if it is missing or cannot be read."""
        ...


class LabelledFiles:
    """Image files with a file of labels, read by index."""

    def __init__(self, path: Path) -> None:
        self._files = list(read_labels(path))

    def __len__(self) -> int:
        """Number of crops."""
        return len(self._files)

    def image(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            BrokenImageError: its file cannot be read.
        """
        return read_file(self._files[index].path)

    def label(self, index: int) -> str:
        """The label as it is stored."""
        return self._files[index].label


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
            DataError: no crop has a label that the rules allow.
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

    def part(self, chosen: NDArray[np.int64], name: str) -> StoredSource:
        """A source of some of the crops, by number."""
        return StoredSource(name, self.stored, self.img_size, self.rules, self.allowed[chosen])

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
        """See `Source`."""
        images = np.empty((len(numbers), *self.img_size, 3), np.uint8)
        centers = unknown_centers(len(numbers))
        labels = []
        for row, (number, seed) in enumerate(zip(numbers, seeds, strict=True)):
            image, label = self._whole(int(number), shrink=augment is not None)
            if augment is not None:
                image, _ = augment(image, centers[row], np.random.default_rng(seed))
            images[row] = fit(image, *self.img_size)
            labels.append(label)
        return Crops(images, labels, centers)

    def _whole(self, number: int, *, shrink: bool) -> tuple[Image.Image, str]:
        """Crop `number` or, if it is broken, the next that is not."""
        for step in range(len(self)):
            at = (number + step) % len(self)
            if not self._broken[at]:
                index = int(self.allowed[at])
                image = self._decode(index, shrink)
                label = self.stored.label(index)
                text = None if label is None else self.rules(label)
                if image is not None and text is not None:
                    return image, text
                self._broken[at] = 1
        raise DataError(f"no image in {self.name} can be decoded")

    def _decode(self, index: int, shrink: bool) -> Image.Image | None:
        try:
            rgb = as_stored(decode_image(self.stored.image(index)))
        except BrokenImageError:
            return None
        if shrink:
            height, width = self.img_size
            rgb.thumbnail((MAX_PIXELS_ASIDE * width, MAX_PIXELS_ASIDE * height), Image.Resampling.BICUBIC)
        return rgb


def open_stored(
    path: Path, img_size: tuple[int, int], rules: LabelRules, alterations: Alterations | None = None
) -> StoredSource:
    """An LMDB archive (a folder) or a file of labels as a source that is read as needed."""
    if path.is_dir():
        return StoredSource(path.name, Archive(path), img_size, rules, alterations=alterations)
    return StoredSource(path.parent.name, LabelledFiles(path), img_size, rules, alterations=alterations)
