"""Crops for training and scoring: LMDB archives of real crops, shards of rendered ones, and the stream of batches.

All crops are held in memory at the network's size (12 kB each at 32x128): decoding and resizing happen once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import IterableDataset

from model.charsets import CharsetAdapter
from model.preprocess import resize
from model.synth.dataset import load_shards

MAX_CENTERS = 25


class DataError(ValueError):
    """A data folder is missing or malformed; the message names the cause and the cure."""


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


def read_synthetic(folder: Path) -> Crops:
    """Read the shards that `python -m model.synth` has written to `folder`.

    Raises:
        DataError: there is none.
    """
    try:
        images, labels, centers = load_shards(folder)
    except FileNotFoundError:
        raise DataError(f"no rendered crops in {folder}: render some with `python -m model.synth --output {folder}`") from None
    return Crops(images, list(labels), centers)


def read_lmdb(folder: Path, img_size: tuple[int, int], charset: str, max_label_length: int) -> tuple[Crops, int]:
    """Read an LMDB archive of word crops (keys `num-samples`, `image-%09d` from 1, `label-%09d`).

    Labels are mapped onto `charset`. Crops whose label is then empty or too long, or whose image is broken, are left out.

    Args:
        folder: the archive's folder.
        img_size: height and width in pixels to resize to.
        charset: what labels may hold.
        max_label_length: the longest label to keep, in characters.

    Returns:
        The crops, and how many were left out.

    Raises:
        DataError: the folder is not such an archive.
    """
    adapt = CharsetAdapter(charset)
    images, labels, left_out = [], [], 0
    for encoded, label in iterate_lmdb(folder):
        text = adapt("".join(label.split()))
        if not 0 < len(text) <= max_label_length:
            left_out += 1
            continue
        try:
            image = Image.open(io.BytesIO(encoded))
            images.append(resize(image, img_size))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            left_out += 1
            continue
        labels.append(text)
    if not labels:
        raise DataError(f"no usable crop in {folder}: check that its labels fit the charset and the label length")
    centers = np.full((len(labels), MAX_CENTERS, 2), np.nan, np.float16)
    return Crops(np.stack(images), labels, centers), left_out


def iterate_lmdb(folder: Path) -> Iterator[tuple[bytes, str]]:
    """Encoded image and label of every crop of an LMDB archive.

    Raises:
        DataError: the folder is not such an archive.
    """
    if not (folder / "data.mdb").is_file():
        raise DataError(f"{folder} is not an LMDB archive: it holds no data.mdb")
    try:
        archive = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{folder} is damaged or no LMDB archive ({error})") from None
    with archive, archive.begin() as transaction:
        count = transaction.get(b"num-samples", b"")
        if not count.isdigit():
            raise DataError(f"{folder} is an LMDB archive, but not of word crops: it has no count at the key 'num-samples'")
        for index in range(1, int(count) + 1):
            image, label = transaction.get(b"image-%09d" % index), transaction.get(b"label-%09d" % index)
            if image is None or label is None:
                raise DataError(f"{folder} is incomplete: crop {index} of {int(count)} is missing")
            try:
                yield image, label.decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{folder}: label {index} is not UTF-8") from None


def find_lmdb(folder: Path) -> list[Path]:
    """All LMDB archives at or below `folder`, sorted.

    Raises:
        DataError: there is none.
    """
    found = sorted(path.parent for path in folder.rglob("data.mdb"))
    if not found:
        raise DataError(f"no LMDB archive (data.mdb) in {folder} or below it")
    return found


class Batch(NamedTuple):
    """What one training step sees: the fields of `Crops`, as tensors."""

    images: Tensor
    labels: list[str]
    centers: Tensor


class BatchStream(IterableDataset[Batch]):
    """An endless stream of batches, drawn from several sources in fixed shares.

    Batch `i` depends on the seed and on `i` alone, so that a resumed run sees what an uninterrupted one would have seen.
    Within a source the crops come in a new random order every epoch.
    """

    def __init__(self, sources: Sequence[tuple[Crops, int]], seed: int, first_step: int = 0) -> None:
        """Prepare the stream.

        Args:
            sources: pairs of crops and how many of them go into each batch.
            seed: of all orders.
            first_step: the index of the first batch to give.
        """
        super().__init__()
        self.sources = [(crops, share) for crops, share in sources if share]
        self.seed = seed
        self.first_step = first_step
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `first_step` on, without end."""
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        """The batch of step `step`, counted from 0."""
        parts = []
        for index, (crops, share) in enumerate(self.sources):
            positions = range(step * share, (step + 1) * share)
            chosen = [self._order(index, p // len(crops))[p % len(crops)] for p in positions]
            parts.append(crops.take(np.array(chosen)))
        return concatenate(parts).batch()

    def _order(self, source: int, epoch: int) -> NDArray[np.int64]:
        key = (source, epoch)
        if key not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old[1] >= epoch - 1 or old[0] != source}
            rng = np.random.default_rng([self.seed, source, epoch])
            self._orders[key] = rng.permutation(len(self.sources[source][0]))
        return self._orders[key]
