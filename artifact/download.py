"""Files from the network, checked and whole or not there at all. Needs the standard library only."""

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
    """The other side cannot be reached, refuses, or stops half-way; the message says which, and holds nothing of the URL."""


class OtherFileError(Exception):
    """What came is another file than the one that was asked for; the message is its SHA-256."""


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
    """Bring a file to its place; one that is there already is replaced.

    Args:
        url: `http://` or `https://`, as the caller has seen to.
        destination: The file to write, in a folder that is there.
        sha256: Of the right file, in lower case; or the first digits of it.
        silence_s: How long the other side may say nothing.
        mode: Permissions of the file; without it those that the process gives to new files.
        progress: Called with the bytes received so far and the size of the file, 0 where that is not known.

    Raises:
        NotReceivedError: The file does not come.
        OtherFileError: Another one does.
        OSError: The folder or the disk refuses.
    """
    with whole_file(destination) as file:
        found = _receive(url, file, silence_s, progress)
        if not found.startswith(sha256):
            raise OtherFileError(found)
        if mode is not None:
            os.fchmod(file.fileno(), mode)


def _receive(url: str, file: BinaryIO, silence_s: float, progress: Callable[[int, int], object]) -> str:
    """Write what the URL gives; returns its SHA-256."""
    digest, received = hashlib.sha256(), 0
    with _asking(lambda: urlopen(url, timeout=silence_s)) as answer:  # nosec B310  # http or https, as the caller has seen to
        length = answer.headers.get("Content-Length") or ""
        size = int(length) if length.isdecimal() else 0
        while chunk := _asking(lambda: answer.read(CHUNK_BYTES)):
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
            progress(received, size)
    return digest.hexdigest()


def _asking(ask: Callable[[], Any]) -> Any:
    """What `ask` gives; what goes wrong with the other side is no error of the disk.

    Raises:
        NotReceivedError: It fails.
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
    """What the operating system or TLS says; of other errors the name only, since their text may quote the URL."""
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    return "a redirect to a URL that cannot be used" if isinstance(error, str) else type(error).__name__
