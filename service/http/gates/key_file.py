"""The file of API keys: read without ever blocking, and accepted only if every line is valid."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.errors import StartupError

HASH_PREFIX: Final = "sha256:"
MIN_KEY_LENGTH: Final = 16
MAX_FILE_BYTES: Final = 2**20
"""Enough for some 20,000 keys; a larger file is some other file."""

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_KEY: Final = re.compile(r"[\x21-\x7e]+")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_QUOTES: Final = ('"', "'", "`")
_LIST_MARKS: Final = "[]{}(),;"
"""Around or behind quotation marks, where somebody took the file for JSON or the like."""
_OPEN: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
"""Flags to open it with, as far as the system has them."""
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_key_file(path: Path) -> bytes:
    """The content, up to `MAX_FILE_BYTES`. Only regular files are read: a pipe or a device may keep its reader waiting.

    Raises:
        StartupError: The file is missing, not readable, not a regular file or too large.
    """
    try:
        _check_is_file(path, path.stat().st_mode)
        with os.fdopen(os.open(path, _OPEN), "rb") as stream:
            _check_is_file(path, os.fstat(stream.fileno()).st_mode)  # it may have been replaced since the first look
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        raise StartupError(f"{_named(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise StartupError(
            f"{_named(path)} is larger than {MAX_FILE_BYTES} bytes: write one key in each line, and nothing else"
        )
    return content


def digests_of(path: Path, content: bytes) -> tuple[bytes, ...]:
    """The SHA-256 digests of the keys in a file, 32 bytes each; none when it holds no key.

    Args:
        path: Of the file, for messages.
        content: UTF-8, with or without a byte order mark, with any line ends.

    Raises:
        StartupError: A line is neither a key, nor `sha256:` and a digest, nor empty, nor a comment. The message gives its
            number but not the line, which may be a mistyped key.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StartupError(f"{_named(path)} is not UTF-8 text (byte {error.start + 1}): save it as such") from None
    return tuple(_digests(path, _LINE_END.split(text)))


def _digests(path: Path, lines: list[str]) -> Iterator[bytes]:
    for number, line in enumerate((line.strip(" \t") for line in lines), 1):
        if not line or line.startswith("#"):
            continue
        where = f"{_named(path)}: line {number}"
        if line.strip(_LIST_MARKS)[:1] in _QUOTES or line.strip(_LIST_MARKS)[-1:] in _QUOTES:
            raise StartupError(
                f"{where} begins or ends with a quotation mark, which would be part of the key: take the quotation marks away, "
                "or write `sha256:` and the digest of a key that really has them"
            )
        if line.lower().startswith(HASH_PREFIX):
            digest = line[len(HASH_PREFIX) :]
            if not _HASH.fullmatch(digest):
                raise StartupError(f"{where} is not `sha256:` and 64 hexadecimal digits")
            yield bytes.fromhex(digest)
        elif len(line) < MIN_KEY_LENGTH or not _KEY.fullmatch(line):
            raise StartupError(f"{where} is no key: at least {MIN_KEY_LENGTH} visible ASCII characters, no blanks")
        else:
            yield hashlib.sha256(line.encode()).digest()


def _check_is_file(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise StartupError(f"{_named(path)} is {kind}, not a file")


def _named(path: Path) -> str:
    return f"PARSEQ_API_KEYS_FILE={path}"
