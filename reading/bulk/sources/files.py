"""Files by name: local ones, and those behind a URL such as `s3://bucket/crops.tar`, for which fsspec is needed."""

from __future__ import annotations

import posixpath
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from model.data.pictures import BrokenImageError, read_file
from reading.bulk.sources.interface import SourceError, reason_of

BLOCK_BYTES = 1 << 22
"""Read at a time from a URL."""


def is_url(name: str) -> bool:
    """Whether a name is not that of a local file."""
    return "://" in name


def remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        SourceError: What it needs is not installed, or it has no such scheme.
    """
    try:
        fsspec = import_module("fsspec")
    except ModuleNotFoundError:
        raise SourceError(
            f"{url}: reading from a URL needs the package 'fsspec': pip install 'parseq-service[bulk]' or download it first"
        ) from None
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: {reason_of(error)} (the extra `bulk` has s3, gs and https)") from None


def open_file(name: str) -> BinaryIO:
    """Open a file for reading, with `seek`.

    Raises:
        SourceError: There is none, or it cannot be opened.
    """
    try:
        if not is_url(name):
            return Path(name).open("rb")
        files, path = remote(name)
        return cast(BinaryIO, files.open(path, "rb", block_size=BLOCK_BYTES))
    except FileNotFoundError:
        raise SourceError(f"{name}: there is no such file") from None
    except SourceError:
        raise
    except Exception as error:  # each file system of fsspec has errors of its own
        raise SourceError(f"{name}: cannot be opened ({reason_of(error)})") from error


def read_picture(name: str) -> bytes:
    """The bytes of an image file.

    Raises:
        BrokenImageError: There is none, or it may not be read: trying again would not help.
        OSError: The network or a disk has failed.
    """
    if not is_url(name):
        return read_file(Path(name))
    files, path = remote(name)
    try:
        return bytes(files.cat_file(path))
    except FileNotFoundError:
        raise BrokenImageError("there is no such file") from None
    except PermissionError as error:
        raise BrokenImageError(f"cannot be read ({reason_of(error)})") from None


def identity_of(name: str) -> str:
    """The full name of a file, its size, and when it changed or what its content's tag is.

    Raises:
        SourceError: There is none.
    """
    try:
        if not is_url(name):
            path = Path(name).resolve()
            status = path.stat()
            return f"{path} {status.st_size} {status.st_mtime_ns}"
        files, path_ = remote(name)
        info = files.info(path_)
    except FileNotFoundError:
        raise SourceError(f"{name}: there is no such file") from None
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{name}: cannot be looked at ({reason_of(error)})") from error
    tags = [str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime") if info.get(key) is not None]
    return " ".join([name, str(info.get("size")), *tags])


def beside(base: str, name: str) -> str:
    """A name in a file or table: absolute, a URL, or relative to the folder `base`."""
    if is_url(name) or name.startswith("/") or not base:
        return name
    return posixpath.join(base, name) if is_url(base) else str(Path(base) / name)
