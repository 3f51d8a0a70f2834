"""`python -m service.fetch_artifact URL SHA256 DESTINATION`: bring an artifact to where a server finds it, or nothing.

For init containers: the image that serves is the image that fetches. Standard library only. The file appears at its place
complete and checked, or not at all; a file that is there already and has the checksum is kept, and nothing is fetched.
Nothing is tried twice: whoever started this (Kubernetes, Compose) tries again, and waits longer each time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

EXIT_OK: Final = 0
EXIT_FAILED: Final = 3
"""As the server's own when it cannot start."""
CHUNK_BYTES: Final = 2**20
SILENCE_TIMEOUT_S: Final = 60.0
"""How long the other side may say nothing."""
READABLE_BY_ALL: Final = 0o644
"""The server may run as another user than the one that fetched."""


class FetchError(Exception):
    """The artifact cannot be had; the message is one line that names the cause."""


def fetch_artifact(url: str, sha256: str, destination: Path) -> bool:
    """Bring the file at `url` to `destination`; `False` when it was there already.

    Raises:
        FetchError: an argument is not acceptable, the file cannot be had or written, or it is another one than asked for.
    """
    wanted = sha256.lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise FetchError(f"{sha256!r} is not a SHA-256: 64 hexadecimal digits, as `sha256sum FILE` prints them")
    source = _checked(url)
    try:
        if destination.is_dir():
            raise FetchError(f"{destination} is a folder: name the file to be")
        if destination.exists() and _sha256_of(destination) == wanted:
            return False
        destination.parent.mkdir(parents=True, exist_ok=True)
        _fetch_beside(url, source, wanted, destination)
    except OSError as error:
        raise FetchError(f"{destination} cannot be written: {error.strerror or error}") from error
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch; the exit code is 0 when the file is in its place and 3 when it is not."""
    arguments = _parse(argv)
    try:
        fetched = fetch_artifact(arguments.url, arguments.sha256, arguments.destination)
    except FetchError as error:
        print(f"fetch_artifact: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.destination}: {'fetched, the checksum is right' if fetched else 'already there'}")
    return EXIT_OK


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.fetch_artifact",
        description="Fetch an artifact, compare its SHA-256 and put it into place, all of it or nothing.",
    )
    parser.add_argument("url", help="http:// or https://")
    parser.add_argument("sha256", help="what `sha256sum FILE` prints for the right file")
    parser.add_argument("destination", type=Path, help="the file to write, such as /models/model.onnx")
    return parser.parse_args(argv)


def _checked(url: str) -> SplitResult:
    try:
        source = urlsplit(url)
        usable = source.scheme in ("http", "https") and bool(source.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise FetchError("the URL must begin with http:// or https:// and name a host")
    return source


def _fetch_beside(url: str, source: SplitResult, wanted: str, destination: Path) -> None:
    """Write aside and move into place: a server that looks meanwhile finds all of it or nothing."""
    # Without user, password and query: those of a signed URL are secrets, and this ends in logs.
    shown = f"{source.scheme}://{source.netloc.rpartition('@')[2]}{source.path}"
    descriptor, draft = tempfile.mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
    digest = hashlib.sha256()
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in _chunks(url, shown):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != wanted:
                raise FetchError(f"{shown} has the SHA-256 {digest.hexdigest()}, not {wanted}: another file, or a damaged one")
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), READABLE_BY_ALL)
        Path(draft).replace(destination)
    finally:
        Path(draft).unlink(missing_ok=True)


def _chunks(url: str, shown: str) -> Iterator[bytes]:
    """What the URL gives, bit by bit.

    Raises:
        FetchError: it gives nothing, an error, or stops half-way.
    """
    try:
        with urlopen(url, timeout=SILENCE_TIMEOUT_S) as answer:  # nosec B310 - http or https, as checked
            while chunk := answer.read(CHUNK_BYTES):
                yield chunk
    except HTTPError as error:
        raise FetchError(f"{shown} answers {error.code} {error.reason}") from error
    except URLError as error:
        raise FetchError(f"{shown} cannot be reached: {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{shown} cannot be read: {type(error).__name__}: {error}") from error


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
