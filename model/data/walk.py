"""Files below a folder, links to folders followed: that is how data sets are often put together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """All files in `folder` and below it; a folder that is linked into itself, or linked twice, is entered once.

    Folders are entered by name, so that it is the same one of several names on every machine.
    """
    entered: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        for name in files:
            yield Path(parent, name)
