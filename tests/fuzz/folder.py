"""Files of a folder in the place of made ones: odd images that others have collected."""

from __future__ import annotations

from pathlib import Path


class Folder:
    """The files below a folder, each with a number.

    Args:
        folder: Is searched to any depth.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.rglob("*") if path.is_file())

    def file(self, number: int) -> bytes:
        """The file of this number."""
        return self.paths[number].read_bytes()
