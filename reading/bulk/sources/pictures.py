"""Picture files as a source: a folder, a list of names, names on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from model.data.pictures import BrokenImageError
from reading.bulk.sources.files import beside, read_picture
from reading.bulk.sources.interface import Row, Source, reason_of


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Image files, each a row; they are known by their names."""

    base: str
    """Where relative names begin."""
    names: tuple[str, ...]
    """Of the range."""

    def cut(self, start: int, stop: int) -> Self:
        """The rows from `start` up to `stop`, without the names of the others."""
        return replace(self, start=start, stop=stop, names=self.names[start - self.start : stop - self.start])

    def content(self) -> Iterator[str]:
        """All names."""
        yield self.identity
        yield from self.names

    def read(self, start: int, stop: int, careful: bool) -> Iterator[Row]:
        """A row for each file; a file that is missing is a row with an error."""
        for number, name in zip(range(start, stop), self.names, strict=True):
            try:
                yield Row(number, name, read_picture(beside(self.base, name)))
            except BrokenImageError as error:
                yield Row(number, name, error=str(error))
            except Exception as error:  # of the network: each file system has its own
                if not careful:
                    raise
                yield Row(number, name, error=reason_of(error))
