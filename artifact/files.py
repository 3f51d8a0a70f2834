"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, content: bytes, check: Callable[[], None] = lambda: None) -> None:
    """Write a file under another name, see that it is on the disk, and only then give it its own.

    Args:
        path: Of the file; one that is there already is replaced.
        content: Of the file.
        check: Called before the file gets its name; what it raises ends the matter, and nothing is left behind.

    Raises:
        OSError: The folder or the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        check()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
