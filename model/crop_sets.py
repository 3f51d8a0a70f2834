"""Labelled crops as a stream, for data sets larger than memory: LMDB archives, rendered shards, plain folders with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data import DataError, iterate_lmdb
from model.label_files import NAMES, count_labels, find_label_files, read_labels
from model.pictures import decode_image, read_file
from model.synth.dataset import ShardError

Stored = bytes | Path | NDArray[np.uint8]
"""A crop as it is kept: an image file's bytes, its path, or pixels."""


@dataclass(frozen=True, slots=True)
class CropSet:
    """A data set that can be gone through."""

    name: str
    count: int
    """Crops, for a progress bar; of a file of labels an estimate."""
    iterate: Callable[[], Iterator[tuple[Stored, str]]]
    """Crops and their labels, in order."""


def crop_sets(source: Path) -> list[CropSet]:
    """The data sets that `source` is or that are below it.

    An LMDB archive, a folder of shards (`python -m model.synth`), a file of labels (`model.label_files`), or a folder with any
    of these in it. Their names are their paths below `source`.

    Raises:
        DataError: there is none.
    """
    if source.is_file():
        return [_labelled(source, source.parent.resolve().name)]
    found = {path.parent: _archive for path in source.rglob("data.mdb")}
    found |= {path.parent: _shards for path in source.rglob("shard-*.npz")}
    sets = [make(folder, _name(folder, source)) for folder, make in found.items()]
    sets += [_labelled(path, _name(path.parent, source)) for path in find_label_files(source)]
    if not sets:
        raise DataError(
            f"no LMDB archive (data.mdb), rendered shards or file of labels ({', '.join(NAMES)}) in {source} or below it"
        )
    return sorted(sets, key=lambda found: found.name)


def _name(folder: Path, root: Path) -> str:
    below = folder.relative_to(root).as_posix()
    return root.resolve().name if below == "." else below


def _archive(folder: Path, name: str) -> CropSet:
    return CropSet(name, count_lmdb(folder), lambda: iterate_lmdb(folder))


def count_lmdb(folder: Path) -> int:
    """Crops that an LMDB archive says it holds; 0 when it does not say (reading it tells what is wrong)."""
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as archive, archive.begin() as transaction:
            count = transaction.get(b"num-samples", b"")
    except lmdb.Error:
        return 0
    return int(count) if count.isdigit() else 0


def _labelled(path: Path, name: str) -> CropSet:
    return CropSet(name, count_labels(path), lambda: ((file.path, file.label) for file in read_labels(path)))


def _shards(folder: Path, name: str) -> CropSet:
    paths = sorted(folder.glob("shard-*.npz"))

    def iterate() -> Iterator[tuple[Stored, str]]:
        for path in paths:
            images = _array(path, "images")
            yield from zip(images, map(str, _array(path, "labels")), strict=True)

    return CropSet(name, sum(len(_array(path, "labels")) for path in paths), iterate)


def _array(path: Path, key: str) -> NDArray[np.uint8]:
    try:
        with np.load(path) as shard:
            return np.asarray(shard[key])
    except Exception as error:  # as many kinds as there are ways to be no archive of arrays
        raise ShardError(f"{path} is not a shard of crops: delete it and render again") from error


def picture_of(stored: Stored) -> tuple[Image.Image, bytes | None]:
    """The picture as it is stored, and the bytes of its file where it has one.

    Raises:
        BrokenImageError: it cannot be read.
    """
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored), None
    if isinstance(stored, Path):
        stored = read_file(stored)
    return decode_image(stored), stored
