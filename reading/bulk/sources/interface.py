"""What a source is: rows in a fixed order, of which any range can be read alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self


class SourceError(ValueError):
    """A source cannot be used; the message names it, the cause and the cure."""


@dataclass(frozen=True, slots=True)
class Row:
    """One crop of a source."""

    number: int
    """Its place in the source, from 0."""
    id: str | None
    encoded: bytes = b""
    """The image file."""
    error: str | None = None
    """Why there is none."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source, or a range of its rows. It is sent to workers, so that it holds no open file."""

    name: str
    """As the user wrote it; in the results' column `source`."""
    identity: str
    """Changes when its content does, as far as that can be seen without reading it."""
    count: int
    """Rows of the whole source that can be found."""
    damage: str | None = None
    """Why no more were found, if there seem to be more; told by one row more, which has this error."""
    start: int = 0
    stop: int = 0
    """The range; `total` of a whole source."""

    @property
    def total(self) -> int:
        """Rows, with the one that tells of the damage."""
        return self.count + (self.damage is not None)

    def cut(self, start: int, stop: int) -> Self:
        """The rows from `start` up to `stop`."""
        return replace(self, start=start, stop=stop)

    def content(self) -> Iterator[str]:
        """What a part of these rows is named by, besides the range."""
        yield self.identity

    def rows(self, *, careful: bool = False) -> Iterator[Row]:
        """The rows of the range, in order.

        Args:
            careful: Rows that cannot be read become rows with an error; else reading them may raise anything.

        Raises:
            SourceError: The source cannot be opened.
        """
        if self.start < self.count:
            yield from self.read(self.start, min(self.stop, self.count), careful)
        if self.stop > self.count:
            yield Row(self.count, None, error=self.damage)

    def read(self, start: int, stop: int, careful: bool) -> Iterator[Row]:
        """As `rows`, for a range without the row that tells of a damage."""
        raise NotImplementedError


def reason_of(error: BaseException) -> str:
    """What went wrong in one line of at most 200 characters."""
    told = " ".join(str(error).split())
    return (told or type(error).__name__)[:200]
