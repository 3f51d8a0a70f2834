"""Tar archives of picture files as a source, as WebDataset and `tar` write them; also compressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

from reading.bulk.sources.files import identity_of, open_file
from reading.bulk.sources.interface import Row, Source, reason_of
from reading.pictures.paths import SUFFIXES

MARK_EVERY: Final = 1000
"""Rows between two places in a file that are remembered, so that a part need not be looked for from the beginning."""
BROKEN: Final = (tarfile.TarError, EOFError, OSError, lzma.LZMAError, ValueError)
COMPRESSED: Final[Mapping[bytes, Callable[[BinaryIO], Any]]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


@dataclass(frozen=True, kw_only=True)
class TarCrops(Source):
    """The pictures in an archive, each known by its name there."""

    file: str
    suffix: str | None
    """Only members with this suffix, such as `.left.jpg`; `None`: all pictures."""
    marks: tuple[int, ...]
    """Offsets in bytes of the rows 0, `MARK_EVERY`, ..."""

    def read(self, start: int, stop: int, careful: bool) -> Iterator[Row]:
        """A row for each picture."""
        mark = start // MARK_EVERY
        number = mark * MARK_EVERY
        with ExitStack() as stack:
            content = _opened(self.file, stack)
            try:
                content.seek(self.marks[mark])
                with tarfile.open(fileobj=content, mode="r:") as archive:
                    for member in _pictures(archive, self.suffix):
                        if number >= start:
                            yield _row(number, archive, member)
                        number += 1
                        if number == stop:
                            return
                raise tarfile.ReadError("there are fewer pictures in it than at first")
            except BROKEN as error:
                if not careful:
                    raise
                for missing in range(max(number, start), stop):
                    yield Row(missing, None, error=f"the archive is damaged ({reason_of(error)})")


def open_tar(file: str, name: str, suffix: str | None) -> TarCrops:
    """Look through an archive for its pictures.

    Args:
        file: Its path or URL.
        name: As the user wrote it.
        suffix: Only members with this suffix; `None`: all pictures.

    Raises:
        SourceError: It cannot be opened.
    """
    count, marks, damage = 0, [], None
    with ExitStack() as stack:
        content = _opened(file, stack)
        try:
            with tarfile.open(fileobj=content, mode="r:") as archive:
                for member in _pictures(archive, suffix):
                    if count % MARK_EVERY == 0:
                        marks.append(member.offset)
                    count += 1
                # A broken header counts as the end of the archive; the real end is a block of zeros, or that of the file.
                content.seek(archive.offset)
                if content.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    damage = f"the archive is damaged after {count} pictures"
        except BROKEN as error:
            damage = f"the archive is damaged after {count} pictures ({reason_of(error)})"
    identity = f"tar {identity_of(file)} {suffix}"
    return TarCrops(name=name, identity=identity, count=count, damage=damage, file=file, suffix=suffix, marks=tuple(marks))


def _opened(file: str, stack: ExitStack) -> BinaryIO:
    content = stack.enter_context(open_file(file))
    kind = COMPRESSED.get(content.read(2))
    content.seek(0)
    return content if kind is None else stack.enter_context(kind(content))


def _pictures(archive: tarfile.TarFile, suffix: str | None) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else it remembers all of them
        name = PurePosixPath(member.name)
        fits = name.suffix.lower() in SUFFIXES if suffix is None else name.name.endswith(suffix)
        if member.isreg() and fits:
            yield member


def _row(number: int, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Row:
    content = archive.extractfile(member)
    try:
        encoded = content.read() if content else b""
    except tarfile.ReadError:
        return Row(number, member.name, error="is cut short in the archive")
    return Row(number, member.name, encoded)
