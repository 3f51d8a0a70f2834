"""The folder of a run: only one run at a time writes to it, and a manifest says what is in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from artifact.files import write_whole

MANIFEST: Final = "_manifest.json"
"""Files that begin with `_` or `.` are not data for whoever reads a folder of Parquet files."""
LOCK: Final = ".lock"


class FolderError(ValueError):
    """The folder cannot be used; the message says why."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it, until the block or this process ends in whatever way.

    Raises:
        FolderError: It cannot be made or written, or another run has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FolderError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"another run writes to {folder}: wait until it ends, or give another --output") from None
        except OSError as error:
            raise FolderError(f"{folder} cannot be locked ({error.strerror}): give a folder on another disk") from None
        yield
    finally:
        os.close(lock)


def sweep(folder: Path) -> None:
    """Remove what a run that was killed has left half written."""
    for pattern in (".*.part", ".*.row"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def strangers(folder: Path, file_names: Iterable[str]) -> list[Path]:
    """Parquet files in the folder that are none of these."""
    ours = frozenset(file_names)
    return sorted(path for path in folder.glob("*.parquet") if path.name not in ours)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest.

    Raises:
        OSError: The disk refuses.
    """
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
