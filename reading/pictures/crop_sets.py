"""Labelled crops as a stream, for data sets larger than memory: LMDB archives, rendered shards, plain folders with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.archives import Archive, iterate_lmdb
from model.data.label_files import NAMES, count_labels, named_otherwise, read_labels
from model.data.pictures import decode_image, read_file
from model.data.shards import SHARDS, read_array
from model.data.walk import files_below
from model.errors import DataError

StoredPicture = bytes | Path | NDArray[np.uint8]
"""A crop as it is kept: an image file's bytes, its path, or pixels."""


@dataclass(frozen=True, slots=True)
class CropSet:
    """A data set to iterate over."""

    name: str
    count: int
    """Number of crops, for a progress bar; for a file of labels an estimate."""
    iterate: Callable[[], Iterator[tuple[StoredPicture, str | None]]]
    """Crops and their labels, in order; a label that is missing or cannot be read is None."""
    kind: str = ""
    """`LMDB`, `shards` or the name of the file of labels."""


def crop_sets(source: Path) -> list[CropSet]:
    """The data sets that `source` is or that are below it.

    An LMDB archive, a folder of shards (`python -m model.synth`), a file of labels (see `label_files`), or a folder with any
    of these in it. Their names are their paths below `source`.

    Raises:
        DataError: There is none, or an archive or a shard is damaged.
    """
    if source.is_file():
        return [_labelled(source, source.parent.resolve().name)]
    files = list(files_below(source))
    sets = [_archive(path.parent, _name(path.parent, source)) for path in files if path.name == "data.mdb"]
    rendered = {path.parent for path in files if fnmatch(path.name, SHARDS)}
    sets += [_shards(folder, _name(folder, source)) for folder in rendered]
    sets += [_labelled(path, _name(path.parent, source)) for path in files if path.name in NAMES]
    if not sets:
        raise DataError(
            f"no LMDB archive (data.mdb), rendered shards or file of labels ({', '.join(NAMES)}) in {source} or below it"
            f"{named_otherwise(source)}"
        )
    return sorted(_told_apart(sets), key=lambda found: found.name)


def _told_apart(sets: list[CropSet]) -> list[CropSet]:
    """Make the names of data sets in one folder distinct."""
    names = Counter(crops.name for crops in sets)
    return [replace(crops, name=f"{crops.name} ({crops.kind})") if names[crops.name] > 1 else crops for crops in sets]


def _name(folder: Path, root: Path) -> str:
    below = folder.relative_to(root).as_posix()
    return root.resolve().name if below == "." else below


def _archive(folder: Path, name: str) -> CropSet:
    return CropSet(name, len(Archive(folder)), lambda: iterate_lmdb(folder), "LMDB")


def _labelled(path: Path, name: str) -> CropSet:
    return CropSet(name, count_labels(path), lambda: ((file.path, file.label) for file in read_labels(path)), path.name)


def _shards(folder: Path, name: str) -> CropSet:
    paths = sorted(folder.glob(SHARDS))

    def iterate() -> Iterator[tuple[StoredPicture, str]]:
        for path in paths:
            images = read_array(path, "images")
            yield from zip(images, map(str, read_array(path, "labels")), strict=True)

    return CropSet(name, sum(len(read_array(path, "labels")) for path in paths), iterate, "shards")


def picture_of(stored: StoredPicture) -> tuple[Image.Image, bytes | None]:
    """The picture as it is stored, and the bytes of its file if it has one.

    Raises:
        BrokenImageError: It cannot be read.
    """
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored), None
    if isinstance(stored, Path):
        stored = read_file(stored)
    return decode_image(stored), stored
