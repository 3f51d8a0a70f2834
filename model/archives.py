"""LMDB archives of word crops, in the layout that scene-text recognition uses everywhere.

Keys: `num-samples`, `image-%09d` (encoded image, counted from 1) and `label-%09d` (UTF-8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from model.errors import DataError
from model.walk import files_below

# A process may open an archive only once at a time: whoever reads it shares the environment, the last one closes it.
_environments: WeakValueDictionary[tuple[int, Path], lmdb.Environment] = WeakValueDictionary()


def _open(folder: Path) -> lmdb.Environment:
    for other, inherited in list(_environments.items()):
        # Opened before a fork: of no use here, and in the way of our own.
        if other[0] != os.getpid():
            inherited.close()
            del _environments[other]
    key = (os.getpid(), folder.resolve())
    environment = _environments.get(key)
    if environment is None:
        try:
            environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{folder} is damaged or no LMDB archive ({error})") from None
        _environments[key] = environment
    return environment


class Archive:
    """One LMDB archive of word crops, read by index (from 0). Every process opens it for itself, when it first reads.

    Raises DataError when the folder is not such an archive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: tuple[int, lmdb.Environment] | None = None
        if not (folder / "data.mdb").is_file():
            raise DataError(f"{folder} is not an LMDB archive: it holds no data.mdb")
        count = self._get(b"num-samples") or b""
        if not count.isdigit():
            raise DataError(f"{folder} is an LMDB archive, but not of word crops: it has no count at the key 'num-samples'")
        self._count = int(count)

    def __len__(self) -> int:
        """Number of crops."""
        return self._count

    def image(self, index: int) -> bytes:
        """The encoded image of a crop."""
        return self._field(b"image-%09d", index)

    def label(self, index: int) -> str:
        """The label of a crop."""
        try:
            return self._field(b"label-%09d", index).decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{self.folder}: label {index + 1} is not UTF-8") from None

    def _field(self, key: bytes, index: int) -> bytes:
        value = self._get(key % (index + 1))
        if value is None:
            raise DataError(f"{self.folder} is incomplete: crop {index + 1} of {self._count} is missing")
        return value

    def _get(self, key: bytes) -> bytes | None:
        # An environment must not be used on the other side of a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open(self.folder)
        with self._opened[1].begin() as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}


def iterate_lmdb(folder: Path) -> Iterator[tuple[bytes, str]]:
    """Encoded image and label of every crop of an LMDB archive.

    Raises:
        DataError: the folder is not such an archive.
    """
    archive = Archive(folder)
    for index in range(len(archive)):
        yield archive.image(index), archive.label(index)


def find_archives(folder: Path) -> list[Path]:
    """All LMDB archives at or below `folder`, sorted."""
    return sorted(file.parent for file in files_below(folder) if file.name == "data.mdb")


def find_lmdb(folder: Path) -> list[Path]:
    """All LMDB archives at or below `folder`, sorted.

    Raises:
        DataError: there is none.
    """
    found = find_archives(folder)
    if not found:
        raise DataError(f"no LMDB archive (data.mdb) in {folder} or below it")
    return found
