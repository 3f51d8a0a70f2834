"""Crops for training and scoring: LMDB archives and labelled folders of real crops, shards of rendered ones.

What is read here is held in memory at the network's size (12 kB each at 32x128): decoding and resizing happen once.
`model.data.sources` reads what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifact.fit import fit
from model.data.alterations import Alterations
from model.data.archives import find_lmdb as find_lmdb
from model.data.archives import iterate_lmdb as iterate_lmdb
from model.data.label_files import read_labels
from model.data.labels import LabelRules
from model.data.pictures import BrokenImageError, as_stored, decode_image, read_file
from model.errors import DataError as DataError
from model.synth.dataset import load_shards

MAX_CENTERS = 25


class Batch(NamedTuple):
    """What one training step sees: the fields of `Crops`, as tensors."""

    images: Tensor
    labels: list[str]
    centers: Tensor


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops in memory."""

    images: NDArray[np.uint8]
    """`(n, height, width, 3)`, RGB."""
    labels: list[str]
    centers: NDArray[np.float16]
    """`(n, 25, 2)`: x and y of each glyph's centre as fractions of width and height, NaN where unknown."""

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.labels)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Crops:
        """The crops at `indices`."""
        chosen = np.asarray(indices)
        return Crops(self.images[chosen], [self.labels[i] for i in chosen], self.centers[chosen])

    def batch(self) -> Batch:
        """All of them as one batch."""
        return Batch(torch.from_numpy(self.images), self.labels, torch.from_numpy(self.centers).float())


def concatenate(parts: Sequence[Crops]) -> Crops:
    """All crops of `parts`, in order."""
    return Crops(
        np.concatenate([part.images for part in parts]),
        [label for part in parts for label in part.labels],
        np.concatenate([part.centers for part in parts]),
    )


def read_synthetic(folder: Path, rules: LabelRules | None = None, alterations: Alterations | None = None) -> Crops:
    """Read the shards that `python -m model.synth` has written to `folder`.

    With `rules`, labels are spelt by them, and crops whose label they refuse are left out. What labels lose is counted in
    `alterations`.

    Raises:
        DataError: there is none, or none with a label that the rules allow.
    """
    try:
        images, labels, centers = load_shards(folder)
    except FileNotFoundError:
        raise DataError(f"no rendered crops in {folder}: render some with `python -m model.synth --output {folder}`") from None
    crops = Crops(images, list(labels), centers)
    return crops if rules is None else _spelt(crops, rules, folder, alterations)


def _spelt(crops: Crops, rules: LabelRules, folder: Path, alterations: Alterations | None) -> Crops:
    alterations = Alterations() if alterations is None else alterations
    spelt = [rules(label, alterations) for label in crops.labels]
    if spelt == crops.labels:
        # Nothing to change: do not copy what may be gigabytes.
        return crops
    kept = [index for index, label in enumerate(spelt) if label is not None]
    if not kept:
        raise none_usable(folder, alterations)
    centers = np.stack([spelt_centers(crops.centers[index], crops.labels[index], rules) for index in kept])
    return Crops(crops.images[kept], [label for label in spelt if label is not None], centers)


def spelt_centers(centers: NDArray[np.float16], text: str, rules: LabelRules) -> NDArray[np.float16]:
    """The centres `(25, 2)` of the characters of a rendered `text` that the rules keep."""
    positions = rules.positions(text)
    kept = np.full_like(centers, np.nan)
    kept[: len(positions)] = centers[positions]
    return kept


def unknown_centers(count: int) -> NDArray[np.float16]:
    """The centres of `count` crops of which nobody knows them."""
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
) -> tuple[Crops, int]:
    """Read an LMDB archive of word crops (keys `num-samples`, `image-%09d` from 1, `label-%09d`).

    Labels are spelt by `LabelRules`. Crops whose label is then empty or too long, or whose image is broken, are left out.

    Args:
        folder: the archive's folder.
        img_size: height and width in pixels to resize to.
        charset: what labels may hold.
        max_label_length: the longest label to keep, in characters.
        normalise_unicode, keep_whitespace, keep_empty: see `LabelRules`.

    Returns:
        The crops, and how many were left out.

    Raises:
        DataError: the folder is not such an archive.
    """
    rules = LabelRules(charset, max_label_length, normalise_unicode, keep_whitespace, keep_empty=keep_empty)
    return read_crops(iterate_lmdb(folder), img_size, rules, folder)


def read_label_file(
    path: Path, img_size: tuple[int, int], rules: LabelRules, alterations: Alterations | None = None
) -> tuple[Crops, int]:
    """Read image files and their file of labels, as `read_lmdb` reads an archive.

    Raises:
        DataError: the file cannot be read, or there is no usable crop.
    """
    return read_crops(((file.path, file.label) for file in read_labels(path)), img_size, rules, path, alterations)


def read_crops(
    samples: Iterable[tuple[bytes | Path, str | None]],
    img_size: tuple[int, int],
    rules: LabelRules,
    source: Path,
    alterations: Alterations | None = None,
) -> tuple[Crops, int]:
    """Decode encoded images whose labels the rules allow; also how many were left out.

    What labels lose is counted in `alterations`.

    Raises:
        DataError: none is left.
    """
    images, labels, left_out = [], [], 0
    alterations = Alterations() if alterations is None else alterations
    for encoded, label in samples:
        text = None if label is None else rules(label, alterations)
        pixels = None if text is None else decode_pixels(encoded, img_size)
        if text is None or pixels is None:
            left_out += 1
            continue
        images.append(pixels)
        labels.append(text)
    if not labels:
        raise none_usable(source, alterations)
    return Crops(np.stack(images), labels, unknown_centers(len(labels))), left_out


def none_usable(source: Path | str, alterations: Alterations) -> DataError:
    """The error of a source without a crop that can be used."""
    lost = f" ({alterations})" if str(alterations) else ""
    return DataError(f"no usable crop in {source}: check that its labels fit the charset and the label length{lost}")


def decode_pixels(encoded: bytes | Path, img_size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """An image file, or its content, at the network's size; None if it is broken."""
    try:
        return fit(as_stored(decode_image(read_file(encoded) if isinstance(encoded, Path) else encoded)), *img_size)
    except BrokenImageError:
        return None
