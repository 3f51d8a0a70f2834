"""Crops that stay in LMDB archives and image files and are decoded when they are needed: for data sets larger than memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.alterations import Alterations
from model.data.archives import Archive
from model.data.crops import Crops, Stored, decode_stored, none_usable, unknown_centers
from model.data.label_files import LabelledFiles
from model.data.labels import LabelRules
from model.data.sources import Augment, assemble
from model.errors import DataError

MAX_PIXELS_ASIDE = 4
"""A stored crop larger than so many times the network's size is shrunk before it is augmented: it saves time, hides nothing."""


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

    def part(self, chosen: NDArray[np.int64]) -> StoredSource:
        """A source of some of the crops, by number."""
        return StoredSource(self.name, self.stored, self.img_size, self.rules, self.allowed[chosen])

    def crops(self, numbers: NDArray[np.int64], augment: Augment | None, seeds: Sequence[Sequence[int]]) -> Crops:
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
