"""Files of a folder in the place of made ones: odd images that others have collected."""

from __future__ import annotations

import random
from pathlib import Path


class Folder:
    """The files below a folder, each with a number; in random order, or large ones in a row would look like growing memory.

    Args:
        folder: Is searched to any depth.
        seed: Of the order.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.paths = sorted(path for path in folder.rglob("*") if path.is_file())
        random.Random(seed).shuffle(self.paths)

    def file(self, number: int) -> bytes:
        """The file of this number."""
        return self.paths[number].read_bytes()
