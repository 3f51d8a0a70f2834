"""Parts of a run: ranges of rows, each of which becomes one file with a name that says what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reading.bulk.sources.interface import Source
from reading.readers.options import ReaderOptions

VERSION: Final = 1
"""Of the results' layout and of how crops are read; results of different versions are not mixed."""
KEY_DIGITS: Final = 24


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run reads, the same in all workers."""

    reader: ReaderOptions
    output: Path
    artifact_sha256: str
    characters: bool = False
    """Whether the confidence of each character is told."""
    batch_size: int = 32

    @property
    def told(self) -> dict[str, Any]:
        """What the results depend on, besides the crops."""
        return {
            "version": VERSION,
            "artifact_sha256": self.artifact_sha256,
            "alternatives": self.reader.alternatives,
            "characters": self.characters,
            "charset": self.reader.allowed,
            "orientation": self.reader.orientation,
            "split": self.reader.split,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a source, and the name of the file that they become."""

    source: Source
    key: str

    @property
    def rows(self) -> int:
        """How many."""
        return self.source.stop - self.source.start

    @property
    def file_name(self) -> str:
        """Of the finished part, in the folder of the run."""
        return f"{self.key}.parquet"

    @property
    def told(self) -> str:
        """For messages."""
        return f"rows {self.source.start} to {self.source.stop - 1} of {self.source.name}"


@dataclass(frozen=True, slots=True)
class Job:
    """A part to be read, and what was learned when that was tried before."""

    part: Part
    attempt: int = 0
    careful: bool = False
    """Row by row: what fails is a row with an error and not the part."""
    given_up: frozenset[int] = field(default_factory=frozenset)
    """Numbers of rows that ended the worker."""
    errors_only: bool = False
    """Read only the rows that the finished part has errors for."""


def cut(sources: Iterable[Source], rows_per_part: int, settings: Settings) -> Iterator[Part]:
    """The parts of all sources.

    Args:
        sources: Each whole.
        rows_per_part: At most.
        settings: How they are read.
    """
    options = json.dumps(settings.told, sort_keys=True)
    for source in sources:
        for start in range(0, source.total, rows_per_part):
            piece = source.cut(start, min(start + rows_per_part, source.total))
            digest = hashlib.sha256(f"{options}\n{piece.start} {piece.stop}".encode())
            for text in piece.content():
                digest.update(b"\0" + text.encode("utf-8", "surrogateescape"))
            if piece.stop > piece.count:
                digest.update(f"\0{piece.damage}".encode())
            yield Part(piece, digest.hexdigest()[:KEY_DIGITS])
