"""Crops for training and scoring: LMDB archives and labelled folders of real crops, shards of rendered ones.

What is read here is held in memory at the network's size (12 kB each at 32x128): decoding and resizing happen once.
`model.data.sources` reads what does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from artifact.fit import fit
from model.data.alterations import Alterations
from model.data.archives import Archive
from model.data.labels import LabelRules
from model.data.pictures import BrokenImageError, as_stored, decode_image
from model.data.shards import load_shards
from model.errors import DataError

MAX_CENTERS: Final = 25
Centers = NDArray[np.float16]
"""`(25, 2)`: x and y of each glyph's centre as fractions of width and height, NaN where unknown."""


class Batch(NamedTuple):
    """What one training step sees: the fields of `CropArrays`, as tensors."""

    images: Tensor
    labels: list[str]
    centers: Tensor


class Stored(Protocol):
    """Encoded images and labels by index, as an archive or a file of labels holds them."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            BrokenImageError: Its file cannot be read.
        """
        ...

    def label(self, index: int) -> str | None:
        """The label as it is stored; None if it is missing or cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class CropArrays:
    """Crops in memory."""

    images: NDArray[np.uint8]
    """`(n, height, width, 3)`, RGB."""
    labels: list[str]
    centers: NDArray[np.float16]
    """`(n, 25, 2)`: `Centers` of each."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> CropArrays:
        """The crops at `indices`."""
        chosen = np.asarray(indices)
        return CropArrays(self.images[chosen], [self.labels[i] for i in chosen], self.centers[chosen])

    def batch(self) -> Batch:
        """All of them as one batch."""
        return Batch(torch.from_numpy(self.images), self.labels, torch.from_numpy(self.centers).float())


def concatenate(parts: Sequence[CropArrays]) -> CropArrays:
    """All crops of `parts`, in order."""
    return CropArrays(
        np.concatenate([part.images for part in parts]),
        [label for part in parts for label in part.labels],
        np.concatenate([part.centers for part in parts]),
    )


def read_synthetic(folder: Path, rules: LabelRules | None = None, alterations: Alterations | None = None) -> CropArrays:
    """Read the shards that `python -m model.synth` has written to `folder`.

    With `rules`, labels are spelt by them, and crops whose label they refuse are left out. What labels lose is counted in
    `alterations`.

    Raises:
        DataError: There is none, or none with a label that the rules allow.
    """
    try:
        images, labels, centers = load_shards(folder)
    except FileNotFoundError:
        raise DataError(f"no rendered crops in {folder}: render some with `python -m model.synth --output {folder}`") from None
    crops = CropArrays(images, list(labels), centers)
    return crops if rules is None else _spelt(crops, rules, folder, alterations)


def _spelt(crops: CropArrays, rules: LabelRules, folder: Path, alterations: Alterations | None) -> CropArrays:
    alterations = Alterations() if alterations is None else alterations
    spelt = [rules(label, alterations) for label in crops.labels]
    if spelt == crops.labels:
        # Nothing to change: do not copy what may be gigabytes.
        return crops
    kept = [index for index, label in enumerate(spelt) if label is not None]
    if not kept:
        raise none_usable(folder, alterations)
    centers = np.stack([spelt_centers(crops.centers[index], crops.labels[index], rules) for index in kept])
    return CropArrays(crops.images[kept], [label for label in spelt if label is not None], centers)


def spelt_centers(centers: Centers, text: str, rules: LabelRules) -> Centers:
    """The centres `(25, 2)` of the characters of a rendered `text` that the rules keep."""
    positions = rules.positions(text)
    kept = np.full_like(centers, np.nan)
    kept[: len(positions)] = centers[positions]
    return kept


def unknown_centers(count: int) -> NDArray[np.float16]:
    """Unknown centres (NaN) for `count` crops."""
    return np.full((count, MAX_CENTERS, 2), np.nan, np.float16)


def read_lmdb(
    folder: Path,
    img_size: tuple[int, int],
    charset: str,
    max_label_length: int,
    *,
    normalise_unicode: bool = True,
    keep_whitespace: bool | None = None,
    keep_empty: bool = False,
) -> tuple[CropArrays, int]:
    """Read an LMDB archive of word crops (keys `num-samples`, `image-%09d` from 1, `label-%09d`).

    Labels are spelt by `LabelRules`. Crops whose label is then empty or too long, or whose image is broken, are left out.

    Args:
        folder: The archive's folder.
        img_size: Height and width in pixels to resize to.
        charset: What labels may hold.
        max_label_length: The longest label to keep, in characters.
        normalise_unicode, keep_whitespace, keep_empty: See `LabelRules`.

    Returns:
        The crops, and how many were left out.

    Raises:
        DataError: The folder is not such an archive.
    """
    rules = LabelRules(charset, max_label_length, normalise_unicode, keep_whitespace, keep_empty=keep_empty)
    return read_crops(Archive(folder), img_size, rules, folder)


def read_crops(
    stored: Stored,
    img_size: tuple[int, int],
    rules: LabelRules,
    source: Path,
    alterations: Alterations | None = None,
) -> tuple[CropArrays, int]:
    """Decode the images whose labels the rules allow; returns the crops, and how many were left out.

    What labels lose is counted in `alterations`; `source` is named in errors.

    Raises:
        DataError: None is left.
    """
    images, labels = [], []
    alterations = Alterations() if alterations is None else alterations
    for index in range(len(stored)):
        label = stored.label(index)
        text = None if label is None else rules(label, alterations)
        image = None if text is None else decode_stored(stored, index)
        if text is not None and image is not None:
            images.append(fit(image, *img_size))
            labels.append(text)
    if not labels:
        raise none_usable(source, alterations)
    return CropArrays(np.stack(images), labels, unknown_centers(len(labels))), len(stored) - len(labels)


def none_usable(source: Path | str, alterations: Alterations) -> DataError:
    """The error for a source without usable crops."""
    lost = f" ({alterations})" if str(alterations) else ""
    return DataError(f"no usable crop in {source}: check that its labels fit the charset and the label length{lost}")


def decode_stored(stored: Stored, index: int) -> Image.Image | None:
    """Crop `index` as an RGB picture; None if its image is missing or broken."""
    try:
        return as_stored(decode_image(stored.image(index)))
    except BrokenImageError:
        return None
