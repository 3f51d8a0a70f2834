"""Which image files a command line means: files, folders, patterns, and lists of them."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from model.data.walk import files_below

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Suffixes of images that are looked for in folders; files given by name may have any suffix."""
STANDARD_INPUT: Final = "-"


class NothingFoundError(ValueError):
    """A folder or a pattern leads to no image file."""


def expand(name: str) -> list[Path]:
    """The files behind a name, sorted.

    A folder stands for all images in it and below it; `*`, `?`, `[...]` and `**` are patterns, unless there is a file of
    just that name. Any other name is that of a file.

    Raises:
        NothingFoundError: There is no file behind a folder or a pattern.
    """
    path = Path(name)
    if path.is_dir():
        found = sorted(file for file in files_below(path) if file.suffix.lower() in SUFFIXES)
        if not found:
            raise NothingFoundError("no image in this folder or below it")
        return found
    if glob.has_magic(name) and not path.exists():
        # Path.glob takes no absolute patterns.
        matches = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207
        found = sorted(match for match in matches if match.is_file())
        if not found:
            raise NothingFoundError("no file matches")
        return found
    return [path]


def listed(source: str) -> Iterator[str]:
    """The names in a file, one a line; `-` is the standard input.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    if source == STANDARD_INPUT:
        yield from _names(sys.stdin)
        return
    with Path(source).open(encoding="utf-8-sig") as file:
        yield from _names(file)


def _names(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name.strip():
            yield name
