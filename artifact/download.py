"""Downloads: a file appears whole and checked, or not at all. Needs the standard library only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from http.client import HTTPException, responses
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from artifact.files import whole_file

CHUNK_BYTES: Final = 2**20


class NotReceivedError(Exception):
    """The server cannot be reached, refuses, or stops half-way; the message says which, and shows nothing of the URL."""


class OtherFileError(Exception):
    """The file received is not the one that was asked for; the message is its SHA-256."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str,
    destination: Path,
    sha256: str,
    *,
    silence_s: float,
    mode: int | None = None,
    progress: Callable[[int, int], object] = lambda _received, _size: None,
) -> None:
    """Download a file; an existing one is replaced.

    Args:
        url: Begins with `http://` or `https://`, which the caller must have checked.
        destination: The file to write, in an existing folder.
        sha256: Digest of the right file in lower case, or its first digits.
        silence_s: How many seconds the server may send nothing.
        mode: Permissions of the file; `None`: those that the process gives to new files.
        progress: Called with the bytes received so far and the size of the file, 0 where that is not known.

    Raises:
        NotReceivedError: The file cannot be received.
        OtherFileError: Another file was received.
        OSError: The folder or the disk refuses.
    """
    with whole_file(destination) as file:
        found = _receive(url, file, silence_s, progress)
        if not found.startswith(sha256):
            raise OtherFileError(found)
        if mode is not None:
            os.fchmod(file.fileno(), mode)


def _receive(url: str, file: BinaryIO, silence_s: float, progress: Callable[[int, int], object]) -> str:
    """Write the content of the URL to `file`; returns its SHA-256."""
    digest, received = hashlib.sha256(), 0
    with _asking(lambda: urlopen(url, timeout=silence_s)) as answer:  # nosec B310  # http or https, which the caller has checked
        length = answer.headers.get("Content-Length") or ""
        size = int(length) if length.isdecimal() else 0
        while chunk := _asking(lambda: answer.read(CHUNK_BYTES)):
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
            progress(received, size)
    return digest.hexdigest()


def _asking(ask: Callable[[], Any]) -> Any:
    """The result of `ask`. Its errors are told apart from those of the disk.

    Raises:
        NotReceivedError: `ask` fails.
    """
    try:
        return ask()
    except HTTPError as error:
        hint = ", and leads where this does not follow" if 300 <= error.code < 400 else ""
        raise NotReceivedError(f"answers {error.code} {responses.get(error.code, '')}{hint}") from None
    except URLError as error:
        raise NotReceivedError(f"cannot be reached: {_cause(error.reason)}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise NotReceivedError(f"cannot be read: {_cause(error)}") from None


def _cause(error: BaseException | str) -> str:
    """The message of the operating system or of TLS; of other errors only the name, since their text may quote the URL."""
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    return "a redirect to a URL that cannot be used" if isinstance(error, str) else type(error).__name__
