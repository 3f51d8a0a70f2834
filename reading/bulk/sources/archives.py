"""LMDB archives of word crops as a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.data.archives import Archive
from model.errors import DataError
from reading.bulk.sources.files import identity_of
from reading.bulk.sources.interface import Row, Source, SourceError


@dataclass(frozen=True, kw_only=True)
class LmdbCrops(Source):
    """The crops of an archive, each known by its key."""

    folder: Path

    def read(self, start: int, stop: int, careful: bool) -> Iterator[Row]:
        """A row for each crop that the archive counts."""
        try:
            archive = Archive(self.folder)
        except DataError as error:
            raise SourceError(str(error)) from None
        for number in range(start, stop):
            id_ = f"image-{number + 1:09d}"
            try:
                encoded = archive.image(number)
            except DataError as error:
                yield Row(number, id_, error=str(error))
                continue
            yield Row(number, id_, encoded, None if encoded else "is missing in the archive")


def open_archive(folder: Path, name: str) -> LmdbCrops:
    """The archive in a folder with a `data.mdb`."""
    identity = f"lmdb {identity_of(str(folder / 'data.mdb'))}"
    try:
        count, damage = len(Archive(folder)), None
    except DataError as error:
        count, damage = 0, str(error)
    return LmdbCrops(name=name, identity=identity, count=count, damage=damage, folder=folder.resolve())
