"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

BUNDLED_MODEL: Final = "parseq-mini"
"""The model that comes with the project: `model/weights/NAME.safetensors`, and `service/bundled/NAME.onnx` made of it."""


@contextmanager
def whole_file(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """A file to write. It has another name beside `path` until it is complete and on the disk.

    Args:
        path: Where the file appears; an existing one is replaced.
        check: Called before the file gets its name. If it raises, or if writing does, no file appears or is left behind.

    Raises:
        OSError: The folder or the disk refuses.
    """
    # Random, not the process's number: in a container that is 1 again after a crash that left a draft behind.
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
    """Write a file that appears whole or not at all.

    Args:
        path: Where the file appears; an existing one is replaced.
        content: All of it.
        check: See `whole_file`.

    Raises:
        OSError: The folder or the disk refuses.
    """
    with whole_file(path, check) as file:
        file.write(content)
