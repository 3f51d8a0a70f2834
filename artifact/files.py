"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """A file to write, under another name beside `path`; once it is on the disk it gets its own.

    Args:
        path: Of the file; one that is there already is replaced.
        check: Called before the file gets its name; what it raises ends the matter, as does what is raised while writing, and
            nothing is left behind.

    Raises:
        OSError: The folder or the disk refuses.
    """
    # Not by the process's number: in a container it is 1 again after whatever left a draft behind.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check()
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, check: Callable[[], None] = lambda: None) -> None:
    """The same for content that is there at once.

    Raises:
        OSError: The folder or the disk refuses.
    """
    with whole_file(path, check) as file:
        file.write(content)
