"""LMDB archives of word crops, in the layout that scene-text recognition uses everywhere.

Keys: `num-samples`, `image-%09d` (encoded image, counted from 1) and `label-%09d` (UTF-8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import lmdb

from model.data.walk import files_below
from model.errors import DataError

MOST_PER_ENTRY: Final = 100
"""An archive may lack some of the crops that it counts; if it counts this many times its entries, the count is wrong."""
UNWRITTEN_PAGES: Final = 4
"""Pages at the end of an archive that may be missing: the last transaction reserved them but did not need them."""
MOST_DIGITS: Final = 18
SHOWN_BYTES: Final = 20

# A process may open an archive only once at a time: all readers share the environment, and the last one closes it.
_environments: WeakValueDictionary[tuple[int, Path], lmdb.Environment] = WeakValueDictionary()


def _open(folder: Path) -> lmdb.Environment:
    for other, inherited in list(_environments.items()):
        # Opened before a fork: it must not be used here, and blocks opening our own.
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
        _check_whole(environment, folder)
        _environments[key] = environment
    return environment


def _check_whole(environment: lmdb.Environment, folder: Path) -> None:
    """Refuse a file that is shorter than it says: reading what is not there would kill the process (SIGBUS)."""
    page_bytes, n_pages = int(environment.stat()["psize"]), int(environment.info()["last_pgno"]) + 1
    held_bytes = (folder / "data.mdb").stat().st_size
    if held_bytes < (n_pages - UNWRITTEN_PAGES) * page_bytes:
        environment.close()
        raise DataError(
            f"{folder} is cut short: its data.mdb has {held_bytes} bytes and should have {n_pages * page_bytes}: copy it again"
        )


class Archive:
    """One LMDB archive of word crops, read by index (from 0). Every process opens it for itself, when it first reads.

    Raises DataError when the folder is not such an archive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: tuple[int, lmdb.Environment] | None = None
        if not (folder / "data.mdb").is_file():
            raise DataError(f"{folder} is not an LMDB archive: it holds no data.mdb")
        self._count = self._read_count()

    def __len__(self) -> int:
        """Number of crops."""
        return self._count

    def image(self, index: int) -> bytes:
        """The encoded image of a crop; empty if it is missing, which no decoder accepts."""
        return self._get(b"image-%09d" % (index + 1)) or b""

    def label(self, index: int) -> str | None:
        """The label of a crop; None if it is missing or not UTF-8."""
        value = self._get(b"label-%09d" % (index + 1))
        try:
            return None if value is None else value.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def _read_count(self) -> int:
        stored = self._get(b"num-samples")
        if stored is None:
            raise DataError(
                f"{self.folder} is an LMDB archive, but not of word crops: it has no count at the key 'num-samples'"
            )
        count = stored.strip().strip(b"\0")  # as programs in C end a text
        if not count.isdigit():
            shown = ascii(count[:SHOWN_BYTES].decode("utf-8", "replace"))
            raise DataError(f"{self.folder}: the key 'num-samples' holds {shown}, which is not a number of crops")
        entries = self._entries()
        if len(count) > MOST_DIGITS or int(count) > MOST_PER_ENTRY * (entries + 1):
            told = count[:SHOWN_BYTES].decode() + ("..." if len(count) > SHOWN_BYTES else "")
            raise DataError(
                f"{self.folder}: the key 'num-samples' tells of {told} crops, but the archive has {entries} entries in all "
                "(two for a crop, one for the count): copy or make the archive again"
            )
        return int(count)

    def _entries(self) -> int:
        return int(self._environment().stat()["entries"])

    def _get(self, key: bytes) -> bytes | None:
        try:
            with self._environment().begin() as transaction:
                value: bytes | None = transaction.get(key)
                return value
        except lmdb.Error as error:
            raise DataError(f"{self.folder} is damaged ({error})") from None

    def _environment(self) -> lmdb.Environment:
        # An environment must not be used on the other side of a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open(self.folder)
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}


def iterate_lmdb(folder: Path) -> Iterator[tuple[bytes, str | None]]:
    """Encoded image and label of every crop of an LMDB archive; of crops that are missing as `Archive` gives them.

    Raises:
        DataError: The folder is not such an archive.
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
        DataError: There is none.
    """
    found = find_archives(folder)
    if not found:
        raise DataError(f"no LMDB archive (data.mdb) in {folder} or below it")
    return found
